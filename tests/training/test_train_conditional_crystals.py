"""Reinforcement learning of a conditional crystal model, with guidance: prompts, ratios, checkpoints."""

from pathlib import Path

import pytest
import torch
from conditional_crystals import backbone, write

from atomrl.checkpoints.crystal import load_crystal_backbone
from atomrl.cli import main
from atomrl.config import load_config
from atomrl.core.log_prob import gaussian_log_prob
from atomrl.training.rl_module import RLModule, build_module
from atomrl.util.errors import UserError

SMALL = ["dataloader.nodes_dist_focus_max=2", "dataloader.nodes_dist_focus_multiplier=1e6"]
TINY = [
    *("reward.type=dummy", "model.time_step=6", "model.guidance_scale=3", "dataloader.sample_group_size=3"),
    *("dataloader.each_prompt_sample=4", "dataloader.micro_batch_size=8", "dataloader.epoches=2"),
    *("train.exploded_above=1e5", "train.learning_rate=1e-3", "train.warmup_steps=0", "train.train_steps=null"),
    *("evaluation.samples=0", "threads=1", "log.tensorboard=false", "reward.components=[]"),
]


def module(folder: Path, *more: str, name: str = "rl_dng_grpo") -> RLModule:
    config = load_config(f"experiment/prototypes/{name}", [*TINY, f"model.backbone={folder}", *more])
    return build_module(config)[0]


def test_a_guided_ratio_is_one_before_the_first_update(tmp_path: Path) -> None:
    made = module(write(tmp_path / "net"))
    assert made.policy.sampling.guidance_scale == 3
    _, trajectory = made.rollout(made.plan.prompts(0))
    assert trajectory.trained
    for bucket in trajectory.buckets:
        assert bucket.prompts.context.shape[1] == 201
        for index in trajectory.trained:
            step = made.policy.step(bucket.latents[index], bucket.mask, trajectory.walk[index], bucket.prompts)
            again = gaussian_log_prob(
                bucket.latents[index + 1], step.mean, step.std, bucket.mask, made.config.log_prob_reduction
            )
            torch.testing.assert_close(again.double(), bucket.log_probs[index].double(), rtol=0, atol=1e-5)
    made.close()


def test_guidance_belongs_to_a_forward_objectives_predictions(tmp_path: Path) -> None:
    """Current and old policy say the same before the first update, what the guided step says."""
    made = module(write(tmp_path / "net"), name="rl_dng")
    prompts = made.plan.prompts(0)
    latents = torch.randn(len(prompts), int(prompts.sizes.max()), 8)
    mask = (torch.arange(latents.shape[1]) < prompts.sizes[:, None]).float()
    transition = made.policy.transitions(6)[2]
    with torch.no_grad():
        current = made.policy.predict(latents, mask, torch.full((len(prompts),), transition.t), prompts)
        with made.policy.old():
            old = made.policy.predict(latents, mask, torch.full((len(prompts),), transition.t), prompts)
        step = made.policy.step(latents, mask, transition, prompts)
    assert torch.equal(current, old)
    torch.testing.assert_close(current, step.prediction.chunk(2, dim=-1)[0])
    made.close()


@pytest.mark.parametrize("name", ["rl_dng_grpo", "rl_dng"])
def test_a_trained_model_is_still_conditional(name: str, tmp_path: Path) -> None:
    folder, run = write(tmp_path / "net"), tmp_path / "run"
    words = ["train", f"experiment=prototypes/{name}", *TINY, f"model.backbone={folder}", f"save_path={run}"]
    main([*words, "dataloader.context={composition: NaCl}", *SMALL])
    trained, before = load_crystal_backbone(run / "checkpoint_latest.pth"), backbone()
    own, other = trained.conditions.state_dict(), before.conditions.state_dict()
    assert all(torch.equal(value, other[key]) for key, value in own.items())  # frozen
    moved = [not torch.equal(v, before.denoiser.state_dict()[k]) for k, v in trained.denoiser.state_dict().items()]
    assert any(moved)
    assert trained.conditioning.known.formulas == before.conditioning.known.formulas
    main(["sample", "--backbone", str(run / "checkpoint_latest.pth"), "-n", "2", "--output", str(tmp_path / "a.cif")])


def test_every_prompt_asks_for_what_the_run_says(tmp_path: Path) -> None:
    folder = write(tmp_path / "net")
    made = module(folder, "dataloader.context={band_gap: 2.5}")
    assert made.plan.prompts(0).context[:, 0].unique().tolist() == [2.5]
    made.close()
    for words, message in (
        (
            ["dataloader.context={gap: 1}"],
            r"conditioned on band_gap, composition, system, not on gap; .*dataloader\.con",
        ),
        (
            ["dataloader.context={gap: 1}", "model.backbone=crystal_small"],
            "model.guidance_scale=3.* is not conditional",
        ),
        (
            ["dataloader.context={gap: 1}", "model.backbone=crystal_small", "model.guidance_scale=null"],
            r"crystal_small is not conditional and takes no values: leave them out \(dataloader\.context=",
        ),
    ):
        with pytest.raises(UserError, match=message):
            module(folder, *words)
