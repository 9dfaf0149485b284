"""Runs on crystals that train adapters: these alone move, and what is saved is an ordinary model that needs no peft."""

import json
import signal
import sys
from pathlib import Path

import pytest
import torch
from crystal_models import randomized, small_vae

pytest.importorskip("peft", reason="the extra lora is not installed: pip install 'atomrl[lora]'")

from atomrl.checkpoints.crystal import CrystalBackbone, load_crystal_backbone, save_crystal_backbone
from atomrl.checkpoints.torch_file import read_torch
from atomrl.cli import main
from atomrl.config import load_config
from atomrl.core.collective import Alone
from atomrl.core.update import trainable_parameters
from atomrl.networks.dit import DiT, DiTConfig
from atomrl.training.rl_module import RLModule, build_module
from atomrl.training.run import train

sys.path.insert(0, str(Path(__file__).parent))
from test_resume import command, wait_for
from test_train_crystals import TINY

ADAPTERS = ["reward.type=dummy", "model.lora.rank=3"]
COPIES = ("policy.current.", "policy.initial.", "policy.followed.", "averaged.module.")
FORWARD = ["train.objective=nft", "train.advantages=sum", "train.nft.old_decay_rate=0.3", "train.nft.times=2"]


@pytest.fixture(scope="module")
def backbone(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("backbone")
    torch.manual_seed(0)
    denoiser = randomized(DiT(DiTConfig(hidden=16, depth=1, heads=2)), std=0.2)
    save_crystal_backbone(folder, CrystalBackbone(small_vae(), denoiser, 1.0, {2: 1, 3: 3}), {})
    return folder


def words(backbone: Path, run: Path, *more: str) -> list[str]:
    places = [f"model.backbone={backbone}", f"save_path={run}"]
    return ["experiment=prototypes/rl_dng_grpo", *TINY, *ADAPTERS, *places, *more]


def trained(backbone: Path, run: Path, *more: str) -> Path:
    return train(load_config("demo", words(backbone, run, *more)), "lora")


def state(run: Path) -> dict[str, torch.Tensor]:
    return read_torch(run / "checkpoint_latest.pth")["state_dict"]


def lines(run: Path) -> list[dict[str, float | None]]:
    logged = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if "seconds" not in name} for line in logged]


@pytest.mark.parametrize(
    "more",
    [
        ("train.kl_penalty_weight=0.1", "train.max_behaviour_kl=0.1", "train.num_inner_batch=2"),
        FORWARD,
    ],
)
def test_the_adapters_alone_move(more: tuple[str, ...], backbone: Path, tmp_path: Path) -> None:
    run = trained(backbone, tmp_path / "run", *more)
    base, moved = load_crystal_backbone(backbone).denoiser.state_dict(), set()
    for name, value in state(run).items():
        copied = next((prefix for prefix in COPIES if name.startswith(prefix)), None)
        if copied is None:  # the VAE's
            continue
        inside = name.removeprefix(copied)
        if ".lora_" not in inside:
            assert torch.equal(value, base[inside.replace(".base_layer", "")]), name
        elif ".lora_B." in inside and bool(value.abs().max() > 0):
            moved.add(copied)
    assert moved == {"policy.current.", "averaged.module.", *(["policy.followed."] if more is FORWARD else [])}


def test_before_the_first_step_it_is_the_backbone(backbone: Path, tmp_path: Path) -> None:
    """The same samples as without adapters, and a ratio of 1 in the first step."""
    rollouts = []
    for rank in (0, 3):
        config = load_config("demo", words(backbone, tmp_path / "run", f"model.lora.rank={rank}"))
        module, _ = build_module(config)
        generated, trajectory = module.rollout(module.plan.prompts(0))
        rollouts.append(generated.structures)
        _, advantages = module.compute_rewards(generated)
        assert torch.isfinite(module.calculate_loss(trajectory, advantages))
        module.close()
    assert all(torch.equal(getattr(rollouts[0], name), getattr(rollouts[1], name)) for name in ("positions", "cell"))
    one_step = ["dataloader.epoches=1", "train.terms_per_step=null", "train.num_inner_batch=null"]
    first = lines(trained(backbone, tmp_path / "first", *one_step))[0]
    assert first["max_abs_log_ratio"] == pytest.approx(0, abs=1e-5)
    assert first["grad_norm"] > 0


def test_what_a_run_saves_is_an_ordinary_model(
    backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained(backbone, tmp_path / "run", "train.learning_rate=1e-1")
    module = RLModule.load_from_checkpoint(run)
    averaged, base = module.averaged.module, load_crystal_backbone(backbone)
    monkeypatch.setitem(sys.modules, "peft", None)
    found = load_crystal_backbone(run / "checkpoint_latest.pth")
    assert found.denoiser.state_dict().keys() == base.denoiser.state_dict().keys()
    latents, times, mask = torch.randn(2, 3, 8), torch.tensor([3, 700]), torch.ones(2, 3)
    with torch.no_grad():
        answers = [model(latents, times, mask) for model in (found.denoiser, averaged, base.denoiser)]
    torch.testing.assert_close(answers[0], answers[1], rtol=1e-4, atol=1e-5)
    assert (answers[0] - answers[2]).abs().max() > 1e-3
    weights = read_torch(run / "generative_model_ema.npy")
    assert weights.keys() == base.denoiser.state_dict().keys()
    assert read_torch(run / "checkpoint_latest.pth")["atomrl"]["lora"]["rank"] == 3
    main(["sample", "--backbone", str(run), "-n", "3", "--time-step", "6", "--output", str(tmp_path / "three.extxyz")])
    assert (tmp_path / "three.extxyz").read_text().count("Lattice=") == 3
    further = words(Path(run), tmp_path / "further", "model.lora.rank=0", "dataloader.epoches=1")
    assert lines(train(load_config("demo", further), "further"))[0]["grad_norm"] > 0
    module.close()


def test_a_run_goes_on_with_the_adapters_that_it_had(
    backbone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained(backbone, tmp_path / "run", "dataloader.epoches=1")
    before = (run / "checkpoint_latest.pth").read_bytes(), (run / "config.yaml").read_text()
    for word, said in (
        ("model.lora.rank=2", "model.lora.rank=2, but the run in {run} began with model.lora.rank=3"),
        ("model.lora.rank=0", "model.lora.rank=0, but the run in {run} began with model.lora.rank=3"),
        ("model.lora.alpha=1", "model.lora.alpha=1.0, but the run in {run} began with model.lora.alpha=None"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main(["train", *words(backbone, run, "resume=true", word)])
        assert stopped.value.code == 2
        assert said.format(run=run) in capsys.readouterr().err
    assert before == ((run / "checkpoint_latest.pth").read_bytes(), (run / "config.yaml").read_text())
    main(["resume", str(run), "dataloader.epoches=2"])
    assert lines(run) == lines(trained(backbone, tmp_path / "whole"))


@pytest.mark.slow
@pytest.mark.parametrize("more", [("train.kl_penalty_weight=0.1", "validation.every=2"), FORWARD])
def test_killed_and_resumed_equals_uninterrupted(more: tuple[str, ...], backbone: Path, tmp_path: Path) -> None:
    killed = tmp_path / "killed"
    process = command(words(backbone, killed, "dataloader.epoches=1000", *more))
    try:
        wait_for(2, killed / "metrics.jsonl", process)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    last = f"dataloader.epoches={read_torch(killed / 'checkpoint_latest.pth')['atomrl']['iteration'] + 3}"
    trained(backbone, killed, "resume=true", last, *more)
    whole = trained(backbone, tmp_path / "whole", last, *more)
    one, other = state(whole), state(killed)
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert lines(whole) == lines(killed)


def test_processes_sum_the_gradients_of_the_adapters_alone(backbone: Path, tmp_path: Path) -> None:
    sizes = []

    class Watched(Alone):
        def sum(self, tensor: torch.Tensor) -> torch.Tensor:
            sizes.append(tensor.numel())
            return tensor

    module, _ = build_module(load_config("demo", words(backbone, tmp_path / "run")), collective=Watched())
    generated, trajectory = module.rollout(module.plan.prompts(0))
    module.calculate_loss(trajectory, module.compute_rewards(generated)[1])
    module.close()
    adapters = sum(parameter.numel() for parameter in trainable_parameters(module.policy))
    assert adapters in sizes
    assert max(sizes) < sum(parameter.numel() for parameter in module.policy.current.parameters()) / 3
