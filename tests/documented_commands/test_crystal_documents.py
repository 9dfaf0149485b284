"""What the source document on crystals shows, imported and run: classes, snippets, the YAML and the commands."""

import json
import logging
import pickle
import re
import runpy
import subprocess
import sys
from pathlib import Path

import hydra
import mp_20_files
import pytest
import torch
from omegaconf import OmegaConf

from atomrl.cli import main
from atomrl.config import load_config
from atomrl.core.log_prob import gaussian_log_prob
from atomrl.core.objectives.grpo import GRPOConfig
from atomrl.rewards.build import build_components
from atomrl.rewards.check import example_crystals
from atomrl.rewards.reinforce import ReinforceReward
from atomrl.testing import check_reward
from atomrl.training.requirements import check_needs
from atomrl.util.errors import UserError

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
import small_backbone
from test_train_crystals import TINY, backbone, known_set

ROOT = Path(__file__).parents[2]
PAPER = ROOT / "configs" / "rl_module" / "rl_module.yaml"
PUBLISHED = [
    *("mp_20/rl_dng", "mp_20/rl_dng_po", "mp_20/rl_bandgap"),
    *("alex_mp_20/rl_dng", "alex_mp_20_bandgap/rl_bandgap", "rl_custom_reward"),
]
DENSITY_CODE = f"{ROOT}/examples/custom_reward.py:AtomicDensity"
DENSITY = f"{{_target_: {DENSITY_CODE}}}"

LOAD = """
from src.rl_module import RLModule
# Load RL module from checkpoint
rl_module = RLModule.load_from_checkpoint(
    "path/to/rl.ckpt",
    weights_only=False,
)
"""
COMPONENT = """
from src.rl_module.components import RewardComponent

class MyCustomReward(RewardComponent):
    def compute(self, gen_structures, **kwargs):
        # Return tensor of rewards for each structure
        # gen_structures: list[Structure]
        return rewards # torch.Tensor
"""
REWARD = """
from src.rl_module.reward import ReinforceReward
from src.rl_module.components import CreativityReward, EnergyReward

reward = ReinforceReward(
    components=[
        CreativityReward(weight=1.0),
        EnergyReward(weight=0.5),
    ],
    normalize_fn="std",
)
"""


def executed(snippet: str, **names: object) -> dict[str, object]:
    exec(compile(snippet, "document", "exec"), names)
    return names


@pytest.fixture(scope="module")
def crystal_run(tmp_path_factory) -> Path:
    """A run of two iterations on crystals, paid for their density; its base backbone is gone."""
    folder = tmp_path_factory.mktemp("crystals")
    base = backbone(folder / "backbone")
    places = [f"model.backbone={base}", f"reward.reference_dataset={known_set(folder / 'known')}"]
    extra = ["train.kl_weight=1", "train.entropy_weight=1e-5", "train.kl_penalty_weight=0.1"]
    components = f"reward.components=[{DENSITY}]"
    main(
        [
            "train",
            "experiment=prototypes/rl_dng_grpo",
            *TINY,
            *places,
            *extra,
            components,
            f"save_path={folder / 'run'}",
        ]
    )
    base.rename(folder / "moved")
    return folder / "run"


@pytest.fixture(scope="module")
def molecule_run(tmp_path_factory) -> Path:
    """A run of two iterations on molecules."""
    folder = tmp_path_factory.mktemp("molecules")
    places = [f"model.backbone={small_backbone.write(folder / 'backbone')}", f"save_path={folder / 'run'}"]
    main(["train", "--config-name=fed_grpo_config", *small_backbone.TINY, *places, "dataloader.epoches=2"])
    return folder / "run"


@pytest.fixture(params=["crystal_run", "molecule_run"])
def run(request) -> Path:
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("name", ["checkpoint_latest.pth", "checkpoint_best.pth"])
def test_loading_a_run(run, name, caplog):
    """The snippet: the checkpoint's own weights come back, and the flag is answered in one line.

    A run that is paid by code of the user's loads only if that is said.
    """
    checkpoint = run / name
    snippet = LOAD.replace("path/to/rl.ckpt", str(checkpoint))
    if DENSITY_CODE in (run / "config.yaml").read_text():
        with pytest.raises(UserError, match=r"AtomicDensity; add trust_code=True"):
            executed(snippet)
        snippet = snippet.replace("weights_only=False", "weights_only=False, trust_code=True")
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        module = executed(snippet)["rl_module"]
    [line] = [record.getMessage() for record in caplog.records]
    assert "weights_only=False" in line
    assert "safe" in line
    assert "\n" not in line
    saved = torch.load(checkpoint, weights_only=True)["state_dict"]
    loaded = module.state_dict()
    assert saved.keys() == loaded.keys()
    assert all(torch.equal(saved[name], loaded[name]) for name in saved)
    module.close()


def test_rollout_rewards_and_loss(run, caplog):
    """A loaded run samples what its next iteration would sample, scores it as the log says, and has a loss."""
    from src.rl_module import RLModule

    module = RLModule.load_from_checkpoint(run, weights_only=True, trust_code=True)
    assert not caplog.records
    try:
        batch = module.plan.prompts(2)
        batch_gen, trajectory = module.rollout(batch)
        module.rollout(module.plan.prompts(3))  # another one in between changes nothing
        rewards, advantages = module.compute_rewards(batch_gen)
        again, _ = module.compute_rewards(batch_gen)
        assert len(batch_gen.structures) == len(batch_gen.prompts) == len(rewards) == len(batch)
        for name, channel in rewards.channels.items():
            assert channel.isfinite().any()
            torch.testing.assert_close(channel, again.channels[name], equal_nan=True)
        groups = batch_gen.prompts.group_ids
        assert advantages.total.abs().max() > 0
        for group in groups.unique():
            assert advantages.total[groups == group].sum().abs() < 1e-6  # normalised inside the group
        check_loss(module, trajectory, advantages)
    finally:
        module.close()


def check_loss(module, trajectory, advantages) -> None:
    """Value and gradient against the whole graph at once; the weights moved first, so that ratios are not 1."""
    parameters = list(module.policy.trainable().parameters())
    torch.manual_seed(0)
    push = 1e-3 if module.config.log_prob_reduction == "mean" else 1e-5  # a sum moves further, and must not all be cut
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(push * torch.randn_like(parameter))
    before = [parameter.detach().clone() for parameter in parameters]
    parameters[0].grad = torch.ones_like(parameters[0])  # of someone else's
    loss = module.calculate_loss(trajectory, advantages)
    assert torch.equal(parameters[0].grad, torch.ones_like(parameters[0]))
    parameters[0].grad = None
    (2 * loss).backward()
    found = [parameter.grad / 2 for parameter in parameters]
    expected = whole_graph_loss(module, trajectory, advantages.total)
    torch.testing.assert_close(loss.double(), expected.detach(), rtol=1e-4, atol=1e-7)
    gradients = torch.autograd.grad(expected, parameters, allow_unused=True)
    flat = torch.cat(
        [
            torch.zeros_like(p).flatten() if g is None else g.flatten()
            for p, g in zip(parameters, gradients, strict=True)
        ]
    )
    assert flat.norm() > 0
    torch.testing.assert_close(torch.cat([g.flatten() for g in found]), flat, rtol=1e-3, atol=1e-5 * float(flat.norm()))
    assert all(torch.equal(old, new) for old, new in zip(before, parameters, strict=True))


def whole_graph_loss(module, trajectory, advantages):
    """-J by its formula: clipped policy gradient, k3, entropy, and half the squared shift from the initial model."""
    train, total, start = module.config, 0.0, 0
    for bucket in trajectory.buckets:
        advantage = advantages[start : start + len(bucket.prompts)]
        start += len(bucket.prompts)
        for index in trajectory.trained:
            transition, latents = trajectory.walk[index], bucket.latents[index]
            step = module.policy.step(latents, bucket.mask, transition, bucket.prompts)
            new = gaussian_log_prob(
                bucket.latents[index + 1], step.mean, step.std, bucket.mask, train.log_prob_reduction
            ).double()
            difference = new - bucket.log_probs[index].double()
            ratio = difference.exp()
            gain = torch.minimum(ratio * advantage, ratio.clamp(1 - train.clip_range, 1 + train.clip_range) * advantage)
            loss = -gain
            if train.objective == "grpo":
                k3 = torch.exp(-difference) - 1 + difference
                loss = loss + train.kl_weight * k3 + train.entropy_weight * new
            if train.kl_penalty_weight:
                loss = loss + train.kl_penalty_weight * divergence(module, step, latents, transition, bucket)
            total = total + loss.sum()
    return total / (len(advantages) * len(trajectory.trained))


def divergence(module, step, latents, transition, bucket):
    """KL(current || initial), mean over the latent elements of the real atoms."""
    with torch.no_grad(), module.policy.reference():
        initial = module.policy.step(latents, bucket.mask, transition, bucket.prompts)
    ratio, shift = step.std / initial.std, (step.mean - initial.mean) / initial.std
    elements = ratio.square() / 2 + shift.square() / 2 - ratio.log() - 0.5
    mask = bucket.mask[..., None].expand_as(elements)
    return (elements * mask).sum((1, 2)).double() / mask.sum((1, 2))


def test_what_is_no_run(tmp_path, molecule_run):
    from src.rl_module import RLModule

    def refused(path: Path) -> str:
        with pytest.raises(UserError) as caught:
            RLModule.load_from_checkpoint(path, weights_only=False)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    class Harmful:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    (tmp_path / "config.yaml").write_bytes((molecule_run / "config.yaml").read_bytes())
    harmful = tmp_path / "rl.ckpt"
    harmful.write_bytes(pickle.dumps({"atomrl": {}, "state_dict": Harmful()}))
    refused(harmful)
    torch.save({"atomrl": {}, "state_dict": Harmful()}, harmful)
    assert "run code" in refused(harmful)
    assert not (tmp_path / "ran").exists()
    assert "absent.pth" in refused(tmp_path / "absent.pth")
    alone = tmp_path / "alone" / "checkpoint_best.pth"
    alone.parent.mkdir()
    alone.write_bytes((molecule_run / "checkpoint_best.pth").read_bytes())
    assert "config.yaml" in refused(alone)


def test_the_documented_classes_are_those_of_the_package():
    from atomrl.rewards import components as ours
    from atomrl.training.rl_module import RLModule as OurModule
    from src.rl_module import RLModule, components, reward, rl_module

    documented = {"CreativityReward", "EnergyReward", "StructureDiversityReward", "CompositionDiversityReward"}
    assert documented | {"RewardComponent", "CustomReward", "PredictorReward"} <= set(components.__all__)
    for name in components.__all__:
        assert getattr(components, name) is getattr(ours, name)
    assert RLModule is rl_module.RLModule is OurModule
    assert reward.ReinforceReward is ReinforceReward


def test_a_component_of_ones_own():
    from src.rl_module.components import CustomReward

    names = executed(COMPONENT, rewards=torch.arange(8.0))
    component = names["MyCustomReward"](weight=2.0, normalize_fn="subtract_mean")
    assert component(["crystal"] * 8).tolist() == [2 * (row - 3.5) for row in range(8)]
    by_name = CustomReward(lambda structures: [crystal.volume for crystal in structures], weight=0.5)
    samples = example_crystals()
    names["rewards"] = torch.arange(float(len(samples[0])))
    check_reward(ReinforceReward([names["MyCustomReward"](), by_name]), *samples)


def test_the_reward_snippet():
    reward = executed(REWARD)["reward"]
    assert [(component.name, component.weight) for component in reward.components] == [
        ("creativity", 1.0),
        ("energy", 0.5),
    ]
    advantages = reward.normalize(torch.tensor([1.0, 2.0, 3.0, 6.0]))
    torch.testing.assert_close(
        (advantages.mean(), advantages.std()), (torch.tensor(0.0), torch.tensor(1.0)), atol=1e-3, rtol=0
    )
    assert {"e_above_hull", "unique", "novel"} <= set(reward.missing_metrics)


def test_the_documented_yaml():
    """Through Hydra as published, and by the same names out of a run's configuration."""
    document = OmegaConf.load(PAPER)
    reward = hydra.utils.instantiate(document.reward_fn)
    assert isinstance(reward, ReinforceReward)
    assert reward.normalize_fn == "std"
    built = build_components(OmegaConf.to_container(document.reward_fn.components))
    for components in (reward.components, built):
        named = {component.name: component.weight for component in components}
        assert named == {"creativity": 1.0, "energy": 1.0, "structure_diversity": 0.1, "composition_diversity": 1.0}
    options = GRPOConfig(**document.rl_configs)
    assert (options.clip_ratio, options.kl_weight, options.num_group_samples) == (0.001, 1.0, 1)
    assert options.group_reward_norm is False
    assert hydra.utils.get_class(document["_target_"]).__name__ == "RLModule"


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_experiments_sample_alike(name):
    config = load_config(f"experiment/{name}")
    assert (config.model.sampler, config.model.time_step, config.model.eta) == ("ddim", 50, 1.0)
    assert (config.train.kl_weight, config.train.entropy_weight, config.train.weight_decay) == (1.0, 1e-5, 0.0)
    assert config.train.clip_range == (1e-4 if name == "alex_mp_20_bandgap/rl_bandgap" else 1e-3)


def test_all_published_names_are_there():
    shipped = ROOT / "src" / "atomrl" / "conf" / "experiment"
    found = {str(path.relative_to(shipped).with_suffix("")) for path in shipped.rglob("*.yaml")}
    ours = ("prototypes/", "perov_5/")
    assert {name for name in found if not name.startswith(ours)} == set(PUBLISHED)


@pytest.mark.parametrize(
    ("name", "groups", "each"), [("mp_20/rl_dng", 5, 64), ("mp_20/rl_dng_po", 320, 1), ("alex_mp_20/rl_dng", 5, 64)]
)
def test_published_experiments(name, groups, each):
    config = load_config(f"experiment/{name}")
    assert config.model.backbone == f"checkpoints/{name.partition('/')[0]}"
    assert config.reward.reference_dataset == "data/mp_20"
    assert (config.dataloader.sample_group_size, config.dataloader.each_prompt_sample) == (groups, each)
    train = config.train
    assert train.group_reward_norm is (each > 1)
    assert (train.objective, train.log_prob_reduction, train.num_inner_batch) == ("grpo", "mean", 2)
    assert (train.clip_range, train.kl_weight, train.entropy_weight) == (0.001, 1.0, 1e-5)
    assert (train.learning_rate, train.max_grad_norm) == (1e-5, 1.0)
    found = [(c.name, c.weight, c.normalize_fn) for c in build_components(config.reward.components)]
    assert found == [
        ("creativity", 1.0, None),
        ("energy", 1.0, "norm"),
        ("structure_diversity", 0.1, "norm"),
        ("composition_diversity", 1.0, "norm"),
    ]


def test_the_command_says_what_is_missing(tmp_path):
    """Nothing is there: all of it in one line, before anything is loaded or written."""
    words = [sys.executable, str(ROOT / "src" / "train_rl.py"), "experiment=mp_20/rl_dng"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    [line] = done.stderr.splitlines()
    for missing in ("train.csv", "val.csv", "hull.json"):
        assert re.search(rf"data/mp_20/{re.escape(missing)} \([^;]+\)", line), line
    assert "https://github.com/txie-93/cdvae/tree/main/data/mp_20" in line
    assert re.search(r"checkpoints/mp_20 \(.*atomrl pretrain vae .*atomrl pretrain ldm ", line)
    assert not list(tmp_path.iterdir())


def test_the_command_trains_once_all_is_in_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mp_20_files.write_csv(tmp_path, monkeypatch)
    backbone(tmp_path / "checkpoints" / "mp_20")
    small = ["model.time_step=5", "dataloader.epoches=1", "dataloader.sample_group_size=2"]
    small += ["dataloader.each_prompt_sample=4", "evaluation.samples=0", "reward.workers=1", "threads=1"]
    small += ["train.exploded_above=1e5", "log.tensorboard=false", "save_path=run"]
    words = ["train_rl.py", "experiment=mp_20/rl_dng", *small]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as caught:  # only the hull is missing still
        runpy.run_path(str(ROOT / "src" / "train_rl.py"), run_name="__main__")
    assert caught.value.code == 2
    mp_20_files.write_hull(tmp_path)
    runpy.run_path(str(ROOT / "src" / "train_rl.py"), run_name="__main__")
    [line] = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert line["grad_norm"] > 0
    assert {"raw_creativity", "raw_energy", "raw_structure_diversity", "raw_composition_diversity"} <= line.keys()
    executed(LOAD.replace("path/to/rl.ckpt", "run"))["rl_module"].close()  # its config.yaml tells of `needs` too


def test_a_reward_of_ones_own_by_the_denoising_loss(tmp_path, monkeypatch, caplog):
    """The experiment that new rewards begin with, two iterations of it; and the published one keeps its objective."""
    monkeypatch.chdir(ROOT)
    places = [f"model.backbone={backbone(tmp_path / 'backbone')}"]
    places += [f"reward.reference_dataset={known_set(tmp_path / 'known')}", f"save_path={tmp_path / 'run'}"]
    small = ["dataloader.sample_group_size=2", "dataloader.each_prompt_sample=4", "dataloader.epoches=2"]
    small += ["model.time_step=6", "train.nft.times=2", "train.num_inner_batch=2", "train.nft.residual_limit=null"]
    small += [
        "train.warmup_steps=0",
        "train.exploded_above=1e6",
        "evaluation.samples=0",
        "reward.workers=1",
        "threads=1",
    ]
    main(["train", "experiment=prototypes/rl_custom_reward", *places, *small, "log.tensorboard=false"])
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 2
    assert rows[0]["grad_norm"] > 0
    assert {"raw_atomic_density", "raw_creativity", "raw_composition_diversity"} <= rows[0].keys()
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == []
    assert load_config("experiment/rl_custom_reward").train.objective == "grpo"


def test_needs_count_only_while_they_are_named(tmp_path, monkeypatch):
    """With sets and weights of one's own nobody asks for the published ones."""
    monkeypatch.chdir(tmp_path)
    own = ["model.backbone=crystal_small", "reward.reference_dataset=prototypes", "reward.hull=null"]

    def missing(name: str, overrides: list[str]) -> list[str]:
        try:
            check_needs(load_config(f"experiment/{name}", overrides))
        except UserError as error:
            return re.findall(r"[:;] (\S+) \(", str(error))
        return []

    assert missing("mp_20/rl_dng", own[1:]) == ["checkpoints/mp_20"]
    assert missing("mp_20/rl_dng", own[:1]) == ["data/mp_20/train.csv", "data/mp_20/val.csv", "data/mp_20/hull.json"]
    assert missing("mp_20/rl_dng_po", own) == []
    assert missing("alex_mp_20/rl_dng", own[1:]) == ["checkpoints/alex_mp_20"]
    for name in ("rl_custom_reward", "prototypes/rl_custom_reward"):
        assert missing(name, []) == ["examples/custom_reward.py"]
    assert missing("rl_custom_reward", ["reward.components=[{_target_: mine.py:Mine}]"]) == []
    monkeypatch.chdir(ROOT)
    assert missing("rl_custom_reward", []) == []
    with pytest.raises(UserError, match="needs=3"):
        load_config("demo", ["needs=3"])
