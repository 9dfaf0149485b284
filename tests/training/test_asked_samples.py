"""`atomrl sample --sizes --context`, and every other way of drawing from a conditional model."""

from pathlib import Path

import ase.io
import conditional_crystals
import pytest
import torch
from refusals import refused
from small_backbone import TINY, write, write_conditional

from atomrl.checkpoints.backbone import load_backbone
from atomrl.cli import main, rollout_main
from atomrl.config import load_config
from atomrl.evaluation.evaluate import SamplePlan, prompt_plan
from atomrl.networks.edm import EDMNetwork
from atomrl.training.rl_module import build_module

FEW = ["--num-molecules", "8", "--time-step", "5"]


@pytest.fixture
def contexts(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """What each call of a network is conditioned on."""
    seen, forward = [], EDMNetwork.forward

    def watched(self, latents, time, mask, context=None):
        seen.append(context)
        return forward(self, latents, time, mask, context)

    monkeypatch.setattr(EDMNetwork, "forward", watched)
    return seen


@pytest.mark.parametrize("make", [write, write_conditional])
def test_sizes_are_those_that_are_asked_for(make, tmp_path: Path) -> None:
    path = tmp_path / "some.extxyz"
    main(["sample", "--backbone", str(make(tmp_path / "net")), *FEW, "--sizes", "6", "7", "--output", str(path)])
    assert {len(atoms) for atoms in ase.io.read(path, index=":")} == {6, 7}


def test_a_value_is_given_in_its_own_unit(tmp_path: Path, contexts: list[torch.Tensor]) -> None:
    folder = write_conditional(tmp_path / "net")
    main(["sample", "--backbone", str(folder), *FEW, "--context", "alpha=60", "--output", str(tmp_path / "s.extxyz")])
    known = load_backbone(str(folder)).conditioning.known["alpha"]
    for context in contexts:
        assert context[:, 0].tolist() == pytest.approx([(60 - known.mean) / known.mad] * len(context))


@pytest.mark.parametrize("way", [[], ["--reject", "2"], ["--best-of", "2"]])
def test_a_value_that_is_not_given_is_drawn_for_the_size(way, tmp_path: Path, contexts: list[torch.Tensor]) -> None:
    folder = write_conditional(tmp_path / "net")
    words = ["sample", "--backbone", str(folder), *FEW, "--sizes", "6", "--output", str(tmp_path / "s.extxyz"), *way]
    if "--reject" in way:
        with pytest.raises(SystemExit):  # an untrained network makes nothing stable
            main(words)
    else:
        main(words)
    conditioning = load_backbone(str(folder)).conditioning
    for context in contexts:
        assert torch.all((conditioning.values(context)["alpha"] - 60).abs() < 1.01)


def test_a_value_that_no_training_structure_had(tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys) -> None:
    """Is named with the range of the training; what comes of it is counted."""
    words = ["sample", "--backbone", str(write_conditional(tmp_path / "net")), "-n", "3", "--time-step", "5"]
    main([*words, "--context", "alpha=60", "--output", str(tmp_path / "s.extxyz")])
    assert not caplog.messages
    main([*words, "--context", "alpha=1e38", "--output", str(tmp_path / "s.extxyz")])
    [said] = caplog.messages
    assert said.startswith("alpha=1e+38: outside of what the model was trained on, 39 to 71 Bohr^3: samples may be")
    assert "3 of 3 samples are not finite" in capsys.readouterr().out


def test_a_value_far_from_those_of_the_training_crystals() -> None:
    conditioning = conditional_crystals.backbone().conditioning
    assert conditioning.asking({"band_gap": 3.0, "composition": "NaCl"}).unseen() == []
    [said] = conditioning.asking({"band_gap": "-2"}).unseen()
    assert said.startswith("band_gap=-2: outside of what the model was trained on, mean 1 and standard deviation 0.5")


def test_training_asks_a_group_for_one_value(tmp_path: Path) -> None:
    folder = write_conditional(tmp_path / "net")
    config = load_config("demo_fed_grpo", [*TINY, f"model.backbone={folder}"])
    module, model = build_module(config)
    prompts = module.plan.prompts(0)
    assert len(prompts.context.reshape(2, 3).unique(dim=1).T) == 1
    assert torch.all((model.conditioning.values(prompts.context)["alpha"] - 10 * prompts.sizes).abs() < 1.01)
    module.close()


def test_a_trained_model_is_still_conditional(
    tmp_path: Path, contexts: list[torch.Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    folder, run = write_conditional(tmp_path / "net"), tmp_path / "run"
    options = [*TINY, f"model.backbone={folder}", f"save_path={run}", "dataloader.epoches=1"]
    main(["train", "--config-name", "demo_fed_grpo", *options, "dataloader.context={alpha: 72}"])
    assert "alpha=72: outside of what the model was trained on, 39 to 71 Bohr^3" in caplog.text
    contexts.clear()
    rollout_main(
        ["--run-dir", str(run), "--num-molecules", "4", "--each-prompt-sample", "2", "--output", str(tmp_path / "s.pt")]
    )
    assert contexts
    assert all(context is not None for context in contexts)
    trained = load_backbone(str(run / "checkpoint_latest.pth"))
    assert torch.equal(
        prompt_plan(trained, SamplePlan(9, 5, 1), 1).prompts(0).context,
        prompt_plan(load_backbone(str(folder)), SamplePlan(9, 5, 1), 1).prompts(0).context,
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--sizes", "5", "9"], "was trained on no sample of 5, 9 atoms: its sizes are 4, 6, 7"),
        (["--sizes", "6", "6"], "--sizes 6 6: numbers of atoms, 1 or more, each once"),
        (["--sizes", "0"], "--sizes 0: numbers of atoms, 1 or more, each once"),
        (["--context", "gap=3"], "the model is conditioned on alpha, not on gap"),
        (["--context", "alpha"], "--context alpha: give name=value, each name once"),
        (["--context", "alpha=high"], "alpha=high: must be a finite number"),
        (["--context", "alpha=nan"], "alpha=nan: must be a finite number"),
        (["--context", "alpha=1", "alpha=2"], "--context alpha=2: give name=value, each name once"),
    ],
)
def test_what_cannot_be_asked_for(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_conditional(tmp_path / "net")
    output = tmp_path / "s.extxyz"
    assert message in refused(capsys, "sample", "--backbone", str(folder), "--output", str(output), *words)
    assert not output.exists()


def test_an_unconditional_model_takes_no_value(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["sample", "--backbone", str(write(tmp_path / "net")), "--context", "alpha=3"]
    assert "takes no value for alpha: it is not conditional" in refused(capsys, *words)


def test_crystals_take_sizes_and_no_values(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["sample", "--backbone", "crystal_small", "--num-samples", "3", "--time-step", "3"]
    main([*words, "--sizes", "4", "--output", str(tmp_path / "some.extxyz")])
    assert {len(atoms) for atoms in ase.io.read(tmp_path / "some.extxyz", index=":")} == {4}
    assert "takes no value for gap: it is not conditional" in refused(capsys, *words, "--context", "gap=1")
