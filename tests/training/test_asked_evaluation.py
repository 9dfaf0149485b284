"""What an evaluation asks a conditional model for: `--context`, or what the run's own prompts ask for."""

import json
from pathlib import Path

import conditional_crystals
import pytest
import torch
from refusals import refused
from small_backbone import TINY, write, write_conditional
from test_train_crystals import known_set

from atomrl.checkpoints.backbone import load_backbone
from atomrl.checkpoints.crystal import save_crystal_backbone
from atomrl.cli import main, rollout_main
from atomrl.config.compose import SAMPLING
from atomrl.evaluation.evaluate import TABLES
from atomrl.library.evaluating import evaluate
from atomrl.library.model_evaluation import ModelEvaluation, Pair
from atomrl.networks.edm import EDMNetwork
from atomrl.report.page import unpacked
from atomrl.sampling.steering_options import SteeringOptions
from atomrl.util.errors import UserError

FEW = ["--num-molecules", "4", "--time-step", "5"]
CRYSTALS = [
    *("experiment=prototypes/rl_dng", "reward.type=dummy", "reward.components=[]", "model.guidance_scale=3"),
    *("model.time_step=6", "dataloader.sample_group_size=2", "dataloader.each_prompt_sample=3", "train.warmup_steps=0"),
    *("dataloader.micro_batch_size=6", "dataloader.epoches=1", "train.exploded_above=1e5", "threads=1"),
    *("evaluation.samples=3", "evaluation.time_step=3", "evaluation.relaxed=0", "evaluation.second_judge=null"),
    *("reward.workers=1", "log.tensorboard=false"),
]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Of each call of the network the values of alpha that it was asked for, as it sees them; a test empties it."""
    seen: list[float] = []
    forward = EDMNetwork.forward

    def watched(self, latents, time, mask, context=None):
        if context is not None:
            seen.extend(context[:, 0].tolist())
        return forward(self, latents, time, mask, context)

    monkeypatch.setattr(EDMNetwork, "forward", watched)
    return seen


def scaled(folder: Path, value: float) -> float:
    """A value as the network sees it."""
    known = load_backbone(str(folder)).conditioning.known["alpha"]
    return (value - known.mean) / known.mad


def columns(folder: Path) -> dict[str, object]:
    """What each column was asked for."""
    return {name: of["asked"] for name, of in json.loads((folder / "evaluation.json").read_text())["columns"].items()}


@pytest.mark.slow
def test_a_run_that_asks_for_a_value_is_evaluated_at_it(
    tmp_path: Path, asked: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    """At its end, by `atomrl evaluate` and by the script; `--context` asks for another, or for none."""
    folder, run = write_conditional(tmp_path / "net"), tmp_path / "run"
    options = [*TINY, f"model.backbone={folder}", "dataloader.epoches=1", "dataloader.context={alpha: 60}"]
    samples = ["evaluation.samples=4", "evaluation.time_step=5", f"save_path={run}"]
    main(["train", "--config-name", "demo_fed_grpo", *options, *samples])
    assert asked == pytest.approx([scaled(folder, 60)] * len(asked))
    assert columns(run / "evaluation") == {"base": {"alpha": 60.0}, "trained": {"alpha": 60.0}}
    assert "- trained: 4 samples, T = 5, asked for alpha=60.0, seed" in (run / "evaluation" / TABLES).read_text()
    assert "base: 4 samples, T = 5, asked for alpha=60.0, seed" in capsys.readouterr().out
    assert "asked for alpha=60.0" in json.dumps(unpacked((run / "report.html").read_text()))

    asked.clear()
    table = ["evaluate", "--base", str(folder), "--trained", str(run), *FEW]
    main([*table, "--output", str(tmp_path / "as_run")])
    assert asked == pytest.approx([scaled(folder, 60)] * len(asked))
    assert columns(tmp_path / "as_run")["trained"] == {"alpha": 60.0}

    asked.clear()
    main([*table, "--context", "alpha=45", "threads=1", "--known", "2", "--output", str(tmp_path / "typed")])
    assert asked == pytest.approx([scaled(folder, 45)] * len(asked))
    assert columns(tmp_path / "typed") == {"base": {"alpha": "45"}, "trained": {"alpha": "45"}, "known set": {}}

    asked.clear()
    evaluate(run, base=folder, samples=8, time_step=5, context={}, output=tmp_path / "drawn")
    assert len({round(value, 3) for value in asked}) > 2  # of the sizes' distributions
    assert columns(tmp_path / "drawn")["base"] == {}

    asked.clear()
    script = ["--run-dir", str(run), "--num-molecules", "4", "--time-step", "5", "--output", str(tmp_path / "s.pt")]
    rollout_main(script)
    assert asked == pytest.approx([scaled(folder, 60)] * len(asked))

    unconditional = ["evaluate", "--base", str(write(tmp_path / "plain")), "--trained", str(run), *FEW]
    main([*unconditional, "--output", str(tmp_path / "both")])  # the base is what it is
    assert columns(tmp_path / "both") == {"base": {}, "trained": {"alpha": 60.0}}
    said = refused(capsys, *unconditional, "--context", "alpha=45", "--output", str(tmp_path / "none"))
    assert "takes no value for alpha: it is not conditional" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--context", "gap=3"], "the model is conditioned on alpha, not on gap"),
        (["--context", "alpha"], "--context alpha: give name=value, each name once"),
        (["--context", "alpha=high"], "alpha=high: must be a finite number"),
        (["--context", "alpha=1", "alpha=2"], "--context alpha=2: give name=value, each name once"),
        (["dataloader.context={alpha: 3}"], "an evaluation takes no dataloader.context; give --context"),
        (
            ["--structures", "some.sdf", "--context", "alpha=3"],
            "--context is about samples of a model, and --structures",
        ),
    ],
)
def test_what_an_evaluation_cannot_ask_for(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "table"
    drawn = ["--base", str(write_conditional(tmp_path / "net")), *FEW]
    given = words if "--structures" in words else [*drawn, *words]
    assert message in refused(capsys, "evaluate", "--output", str(output), *given)
    assert not (output / TABLES).exists()


@pytest.mark.slow
def test_a_crystal_run_that_asks_for_a_value_is_evaluated_at_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[torch.Tensor] = []
    context = conditional_crystals.backbone().conditioning.__class__.context

    def watched(self, sizes, group_ids, seed, iteration):
        seen.append(context(self, sizes, group_ids, seed, iteration))
        return seen[-1]

    monkeypatch.setattr("atomrl.policies.crystal_conditioning.CrystalConditioning.context", watched)
    folder, run = conditional_crystals.write(tmp_path / "net"), tmp_path / "run"
    places = [f"model.backbone={folder}", f"reward.reference_dataset={known_set(tmp_path / 'known')}"]
    main(["train", *CRYSTALS, *places, "dataloader.context={band_gap: 2.5}", f"save_path={run}"])
    assert {float(value) for prompts in seen for value in prompts[:, 0]} == {2.5}
    assert columns(run / "evaluation") == {"base": {"band_gap": 2.5}, "trained": {"band_gap": 2.5}}
    seen.clear()
    table = ["evaluate", "--base", str(folder), "--trained", str(run), "-n", "3", "--time-step", "3"]
    main([*table, "--context", "band_gap=1.5", "composition=NaCl", "--output", str(tmp_path / "typed")])
    assert {float(value) for prompts in seen for value in prompts[:, 0]} == {1.5}
    said = "asked for band_gap=1.5, composition=NaCl, seed"
    assert (tmp_path / "typed" / TABLES).read_text().count(said) == 2
    said = refused(capsys, *table, "--context", "gap=1", "--output", str(tmp_path / "no"))
    assert "the model is conditioned on band_gap, composition, system, not on gap" in said


def test_an_unconditional_base_has_no_guidance_beside_a_run(tmp_path: Path) -> None:
    """The scale is the run's; who types one means it for both."""
    guided, plain = tmp_path / "guided", conditional_crystals.write(tmp_path / "plain", ())
    save_crystal_backbone(guided, conditional_crystals.backbone(), {SAMPLING: {"guidance_scale": 3.0}})

    def models(*words: str) -> Pair:
        options = SteeringOptions(0, None, None)
        return ModelEvaluation(
            *(str(plain), str(guided), 3, 3, None, 0, options, 0, 0, words, tmp_path / "table", "cpu")
        )._models(trust_code=False, remedy="")

    pair = models()
    assert pair.trained.policy().sampling.guidance_scale == 3
    assert pair.base.conditions is None
    with pytest.raises(UserError, match=r"model\.guidance_scale=2: .*plain is not conditional, and guidance would"):
        models("model.guidance_scale=2")
