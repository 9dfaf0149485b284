"""A user's own parts in one Python call: trained, sampled, evaluated, continued; and what commands say of the run."""

import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from ase.calculators.lj import LennardJones

import atomrl
from atomrl.checkpoints.backbone import load_backbone
from atomrl.cli import main
from atomrl.core.objectives.fed_grpo import FedGRPO, FedGRPOConfig
from atomrl.core.records import RewardTable
from atomrl.library.model_evaluation import sampler_of
from atomrl.rewards.base import RewardComponent
from atomrl.util import glibc_malloc

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
from refusals import refused
from small_backbone import TINY, write


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Of a tiny training whose reward the call gives."""
    monkeypatch.chdir(tmp_path)
    mine = [word for word in TINY if not word.startswith(("reward.type", "reward.components", "train.energy"))]
    return [*mine, f"model.backbone={write(tmp_path / 'backbone')}", "reward.workers=1", "dataloader.epoches=2"]


def no_backbone(words: list[str]) -> list[str]:
    return [word for word in words if not word.startswith("model.backbone")]


def numbers(run: atomrl.Run) -> list[dict]:
    return [{name: value for name, value in row.items() if "seconds" not in name} for row in run.log]


def weights(run: atomrl.Run) -> dict[str, torch.Tensor]:
    return torch.load(run.folder / "checkpoint_latest.pth", weights_only=True)["state_dict"]


def same(one: atomrl.Run, other: atomrl.Run) -> None:
    assert numbers(one) == numbers(other)
    first, second = weights(one), weights(other)
    assert all(torch.equal(first[name], second[name]) for name in first | second)


@pytest.mark.slow
def test_a_function_in_place_of_the_reward(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    def oxygen_share(molecules: "list[Atoms]") -> list[float]:  # noqa: F821 - the name alone counts
        return [float((molecule.numbers == 8).mean()) for molecule in molecules]

    words = [*words, "evaluation.samples=4"]
    run = atomrl.train("demo", [*words, "save_path=run"], reward=oxygen_share)
    assert (run.folder, run.iterations, run.best_iteration in {0, 1}) == (Path("run"), 2, True)
    assert run.columns["raw_oxygen_share"] == [row["raw_oxygen_share"] for row in run.log]
    assert run.columns["reward"] == pytest.approx(run.columns["raw_oxygen_share"])
    assert "_target_: <python>:oxygen_share" in (run.folder / "config.yaml").read_text()
    assert set(run.evaluation["metrics"]["reward_oxygen_share"]["columns"]) == {"base", "trained"}
    assert "reward_oxygen_share" in run.evaluation["rewarded"]
    [column] = {column["command"] for column in run.evaluation["columns"].values()}
    assert column.startswith("atomrl.train('demo', [")
    assert column.endswith("], reward=oxygen_share)")
    assert repr(run).startswith("Run('run'): molecules, 2 of 2 iterations, reward 0")
    assert "| reward component oxygen_share" in run._repr_markdown_()

    # Stopped after one iteration and continued, it is the same run.
    half = atomrl.train(
        "demo", [*words, "save_path=half", "train.total_steps=2", "dataloader.epoches=1"], reward=oxygen_share
    )
    half = half.resume(["dataloader.epoches=2", "evaluation.samples=0"])
    same(
        atomrl.train(
            "demo", [*words, "save_path=whole", "train.total_steps=2", "evaluation.samples=0"], reward=oxygen_share
        ),
        half,
    )
    with pytest.raises(atomrl.UserError, match=r"reward \(oxygen_share\) was an object of a Python program"):
        atomrl.resume("run", ["dataloader.epoches=3"])
    with pytest.raises(atomrl.UserError, match=r"something else was given: reward\.components="):
        atomrl.resume("run", ["dataloader.epoches=3"], reward=["dummy", oxygen_share])
    assert atomrl.resume("run", ["dataloader.epoches=3", "evaluation.samples=0"], reward=oxygen_share).iterations == 3

    # The command line says in one line what it cannot, and does what needs no reward.
    for command in (["resume", "run"], ["evaluate", "--trained", "run", "--trust-code"]):
        said = refused(capsys, *command)
        assert "run/config.yaml: the run's reward (oxygen_share) was an object of a Python program" in said
        assert "atomrl.resume('run', reward=oxygen_share)" in said
    main(["sample", "--backbone", "run", "-n", "2", "--time-step", "5"])
    with pytest.raises(atomrl.UserError, match="was an object of a Python program"):
        atomrl.evaluate("run", samples=2)
    report = atomrl.Run("run", reward=oxygen_share).evaluate(3, time_step=5, best_of=2, output="table")
    assert [column.label for column in report.main.columns] == ["base", "base best of 2", "trained"]
    assert "reward_oxygen_share" in report.main.rewarded
    assert "| reward component oxygen_share" in report._repr_markdown_()


def test_what_is_imported_from_a_file_is_recorded_by_name(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every command takes such a run; what runs it is in the file."""
    (tmp_path / "heavy_reward.py").write_text(
        "def heavy(molecules: 'list[Atoms]', above=1):\n"
        "    return [float((molecule.numbers > above).sum()) for molecule in molecules]\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    from heavy_reward import heavy

    run = atomrl.train("demo", [*words, "save_path=run", "train.force_adv_weight=0"], reward={heavy: 2.0})
    assert run.config.reward.own == [{"_target_": "heavy_reward.py:heavy", "weight": 2.0}]
    with pytest.raises(atomrl.UserError, match=r"heavy_reward\.py:heavy; add trust_code=True"):
        atomrl.resume("run", ["dataloader.epoches=3"])
    main(["resume", "run", "--trust-code", "dataloader.epoches=3"])
    assert run.iterations == 3
    assert atomrl.resume("run", ["dataloader.epoches=4"], reward={heavy: 2.0}).iterations == 4


@pytest.mark.slow
@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_reaches_the_program(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """It is no exit; what was done is kept, and goes on."""
    scored = []

    def size(molecules: "list[Atoms]") -> list[float]:  # noqa: F821 - the name alone counts
        scored.append(len(molecules))
        if sum(scored) == 12:  # the second iteration
            signal.raise_signal(signal.SIGINT)
        return [-float(len(molecule)) for molecule in molecules]

    steps = [*words, "train.total_steps=3", "dataloader.epoches=3"]
    with pytest.raises(KeyboardInterrupt):
        atomrl.train("demo", [*steps, "save_path=run"], reward=size)
    assert "stopped; continue with: atomrl.resume('run', reward=size) in Python" in capsys.readouterr().out
    run = atomrl.resume("run", reward=size)
    assert run.iterations == 3
    same(run, atomrl.train("demo", [*steps, "save_path=whole"], reward=size))


class Sizes:
    """A whole reward: two channels, with weights of its own."""

    scope = "per_sample"
    weights = {"small": 1.0, "light": 0.5}  # noqa: RUF012

    def __init__(self) -> None:
        self.open, self.seen = True, 0
        self.known: list[list[float]] = [[], []]

    def score(self, structures, prompts):
        self.seen += len(structures)
        first = prompts.sample_ids % 6 == 0
        small = torch.where(first, torch.nan, -structures.sizes.double())
        light = -structures.numbers.sum(1).double()
        self.known[prompts.iteration] += (small + 0.5 * light)[~first].tolist()
        return RewardTable({"small": small, "light": light}, tuple("odd" if one else None for one in first.tolist()))

    def close(self):
        self.open = False


def test_a_whole_reward_stands_alone(words: list[str]) -> None:
    mine = Sizes()
    run = atomrl.train("demo", [*words, "save_path=run"], reward=mine)
    for row, known in zip(run.log, mine.known, strict=True):  # the first sample failed
        assert row["raw_reward"] == pytest.approx((sum(known) + min(known)) / 6)
        assert (row["reward"], row["failed"]) == (pytest.approx(sum(known) / 5), 1)
    assert mine.open
    assert mine.seen == 2 * 6
    with pytest.raises(atomrl.UserError, match="Sizes is a whole reward, with channels of its own"):
        atomrl.train("demo", words, reward=["dummy", mine])
    mine.weights = {"small": 1.0, "heavy": 1.0}
    with pytest.raises(atomrl.UserError, match="it has weights of heavy, and its table has the channels small, light"):
        atomrl.train("demo", words, reward=mine)
    del Sizes.weights, mine.weights
    with pytest.raises(atomrl.UserError, match="Sizes has no weights"):
        atomrl.train("demo", words, reward=mine)


def test_a_component_an_objective_and_a_calculator(words: list[str]) -> None:
    class Compact(RewardComponent):
        def compute(self, gen_structures, **kwargs):
            return -torch.tensor([float(atoms.get_all_distances().max()) for atoms in gen_structures])

    calls = []

    class Own(FedGRPO):
        def __init__(self, channel_weights):
            calls.append(channel_weights)
            super().__init__(FedGRPOConfig(channel_weights=channel_weights, kl_penalty_weight=0.1))

    plain = [*words, "reward.use_energy=false", "train.train_steps=2"]
    run = atomrl.train(
        "fed_grpo_config",
        [*plain, "save_path=run", "reward.force_clip_threshold=10"],
        reward=["ase", Compact(weight=3.0)],
        objective=Own,
        force_field=LennardJones(sigma=1.0, rc=6.0),
    )
    assert calls == [{"force": 1.0, "compact": 3.0}]
    assert {"raw_compact", "force_reward_mean", "kl_loss"} <= run.columns.keys()
    assert run.config.train.objective == {"_target_": "<python>:Own"}
    made = FedGRPO(FedGRPOConfig(channel_weights={"compact": 1.0}))
    run = atomrl.train("fed_grpo_config", [*plain, "save_path=two"], reward=Compact(), objective=made)
    assert run.iterations == 2


@pytest.mark.slow
def test_a_policy_that_has_no_stored_form(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its weights are in the run; the policy itself is given again."""
    policy = load_backbone(str(tmp_path / "backbone")).policy()
    words = no_backbone(words)
    with pytest.raises(atomrl.UserError, match="policy=MoleculePolicy does not say how many atoms its samples have"):
        atomrl.train("demo", words, reward="dummy", policy=policy)
    policy.sizes = {4: 2, 6: 1}
    before = {name: tensor.clone() for name, tensor in policy.state_dict().items()}
    steps = ["train.total_steps=2"]
    run = atomrl.train("demo", [*words, *steps, "save_path=run", "evaluation.samples=2"], reward="dummy", policy=policy)
    assert all(torch.equal(before[name], tensor) for name, tensor in policy.state_dict().items())
    trained = run.policy.state_dict()
    assert any(not torch.equal(before[name], trained[name]) for name in before)
    assert {len(molecule) for molecule in run.sample(4, time_step=5)} <= {4, 6}
    assert atomrl.Run("run", policy=policy).evaluate(2, time_step=5, output="table").main.columns[1].label == "trained"

    half = atomrl.train(
        "demo", [*words, *steps, "save_path=half", "dataloader.epoches=1"], reward="dummy", policy=policy
    )
    same(run, atomrl.resume(half.folder, ["dataloader.epoches=2"], policy=policy))
    said = refused(capsys, "sample", "--backbone", "run")
    assert "MoleculePolicy was an object of a Python program, which no file holds: give it again" in said
    assert "the run's policy (MoleculePolicy) was an object" in refused(capsys, "resume", "run")
    other = load_backbone("edm_qm9_small").policy()
    other.sizes = {4: 1}
    with pytest.raises(atomrl.UserError, match="tensors do not fit the model"):
        atomrl.load(atomrl.Run("run", policy=other))


def test_a_model_that_was_loaded_and_a_run_go_on_as_policies(words: list[str], tmp_path: Path) -> None:
    model = atomrl.load(tmp_path / "backbone")
    run = atomrl.train("demo", [*no_backbone(words), "save_path=run"], reward="dummy", policy=model)
    assert atomrl.load("run").sizes == model.sizes  # the card says all of such a model
    again = atomrl.train("demo", [*no_backbone(words), "save_path=again"], reward="dummy", policy=run)
    assert again.config.model.backbone == "run"


def test_samples_in_memory_and_in_a_file(tmp_path: Path) -> None:
    """The same as those of the command."""
    backbone = write(tmp_path / "backbone")
    found = atomrl.sample(backbone, 3, time_step=5, output=tmp_path / "python.extxyz", sizes=[4, 6])
    assert {len(molecule) for molecule in found} <= {4, 6}
    words = ["--sizes", "4", "6", "--backbone", str(backbone), "-n", "3", "--time-step", "5"]
    main(["sample", *words, "--output", str(tmp_path / "command.extxyz")])
    assert (tmp_path / "python.extxyz").read_text() == (tmp_path / "command.extxyz").read_text()
    with pytest.raises(atomrl.UserError, match="the ending must be one of "):
        atomrl.sample(backbone, 3, output=tmp_path / "a.png")
    with pytest.raises(atomrl.UserError, match=r"is loaded already: give model\.time_step=5 to atomrl\.load"):
        atomrl.sample(atomrl.load(backbone), 2, overrides=["model.time_step=5"])
    with pytest.raises(atomrl.UserError, match=r"Backbone is loaded already: give atomrl\.evaluate a Run"):
        atomrl.evaluate(atomrl.load(backbone))
    torch.set_num_threads(2)
    one = ["reward.workers=1", "threads=1"]
    alone = atomrl.evaluate(backbone, samples=2, time_step=5, overrides=one, output=tmp_path / "table", trust_code=True)
    assert alone.main.columns[0].command.endswith(", trust_code=True)")
    assert torch.get_num_threads() == 1
    assert [column.label for column in alone.main.columns] == ["base"]
    assert json.loads((tmp_path / "table" / "evaluation.json").read_text())["columns"]["base"]["time_step"] == 5


def test_runs_share_the_samples_of_a_base_that_their_trainings_do_not_change() -> None:
    """What `--keep` keeps, whatever walks the trainings took; not if they are sampled otherwise."""
    molecules = [atomrl.load_config("demo", words) for words in ([], ["model.time_step=77"])]
    crystals = [
        atomrl.load_config("experiment/prototypes/rl_dng", words)
        for words in ([], ["model.lora.rank=4", "model.backbone=mine"], ["model.sampler=ddpm"], ["model.sampler=ddim"])
    ]
    assert len(set(map(sampler_of, molecules))) == 1
    assert sampler_of(crystals[0]) == sampler_of(crystals[1])
    assert len(set(map(sampler_of, crystals))) == 2


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda: atomrl.train("demo", ["nothing=1"]), id="train"),
        pytest.param(lambda: atomrl.resume("nowhere"), id="resume"),
        pytest.param(lambda: atomrl.evaluate("nowhere"), id="evaluate"),
        pytest.param(lambda: atomrl.sample("nowhere"), id="sample"),
    ],
)
def test_freed_memory_is_kept_meanwhile(call: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """As the commands do; what that means, and that it ends, is in test_allocator.py."""
    asked = []
    monkeypatch.setattr(glibc_malloc, "keep_freed_memory", lambda: asked.append(call))
    with pytest.raises(atomrl.UserError):
        call()
    assert asked == [call]


@pytest.mark.slow
def test_the_command_and_the_call_train_alike(words: list[str]) -> None:
    main(
        ["train", *words, "reward.type=dummy", "reward.components=[]", "train.stability_adv_weight=0", "save_path=one"]
    )
    same(atomrl.train("demo", [*words, "save_path=two"], reward="dummy"), atomrl.Run("one"))
    config = atomrl.load_config("demo", [*words, "save_path=three"])
    same(atomrl.train(config, reward="dummy"), atomrl.Run("one"))
