"""A reward, a force field of ASE and an objective of the user's, from one YAML and one file outside the package."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from ase.calculators.lj import LennardJones

from atomrl.cli import main
from atomrl.config import load_config, read_config
from atomrl.core.objectives.fed_grpo import FedGRPO
from atomrl.force_fields.ase_task import SinglePoint
from atomrl.force_fields.build import build_force_field
from atomrl.structures.examples import example_molecules
from atomrl.structures.molecules import Geometry
from atomrl.training.rl_module import RLModule, build_module
from atomrl.training.run import train
from atomrl.user_code.trust import foreign_code
from atomrl.util.errors import UserError

EXAMPLES = Path(__file__).parents[1] / "examples"
SHORT = [
    "dataloader.epoches=2",
    "dataloader.sample_group_size=2",
    "dataloader.each_prompt_sample=4",
    "model.time_step=20",
    "train.train_steps=3",
    "reward.workers=1",
    "threads=1",
    "log.tensorboard=false",
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the example in it, as a user has it."""
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_one_yaml_and_one_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its channel has a weight in the objective, columns in the log, a row in the table; nothing else names it."""
    main(["train", "--config-dir", "examples", "--config-name", "your_own_code", "save_path=run", *SHORT])
    capsys.readouterr()
    rows = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 2
    for row in rows:
        assert 0 <= row["oxygen_share_reward_mean"] == row["raw_oxygen_share"] <= 1
        assert row["ratio"] == pytest.approx(1, abs=1e-3)  # a count of the user's objective
        expected = row["force_reward_mean"] + row["stability_reward_mean"] + 2 * row["oxygen_share_reward_mean"]
        assert row["reward"] == pytest.approx(expected, rel=1e-5)
    words = ["--trained", "run", "--num-molecules", "4", "--time-step", "10", "--output", "table"]
    with pytest.raises(SystemExit):
        main(["evaluate", *words])
    refused = capsys.readouterr().err
    for name in ("oxygen_share", "Springs", "Reinforce"):
        assert f"examples/your_own_code.py:{name}" in refused
    main(["evaluate", *words, "--trust-code", "--best-of", "2"])
    table = (folder / "table" / "evaluation.md").read_text()
    [row] = [line for line in table.splitlines() if "oxygen_share" in line and line.startswith("|")]
    assert "| yes |" in row


def test_the_objective_gets_the_weights_of_all_channels(folder: Path) -> None:
    config = load_config("your_own_code", SHORT, Path("examples"))
    module, _ = build_module(config)
    try:
        assert type(module.objective).__name__ == "Reinforce"
        assert module.objective.config.channel_weights == {"force": 0.5, "stability": 1.0, "oxygen_share": 2.0}
        assert module.scorer.reward.scope == "per_sample"
    finally:
        module.close()


def test_a_run_is_loaded_only_if_its_code_is_trusted(folder: Path) -> None:
    run = train(load_config("your_own_code", [*SHORT, "save_path=run"], Path("examples")), "own")
    with pytest.raises(UserError, match="names code that is not part of atomrl"):
        RLModule.load_from_checkpoint(run)
    RLModule.load_from_checkpoint(run, trust_code=True).close()
    assert foreign_code([{"_target_": "ase"}, {"_target_": "xtb"}, {"_target_": "ani", "batch_size": 8}]) == []
    mace = {"_target_": "mace", "python": "theirs/python", "model_file": "theirs.model"}
    assert foreign_code([mace]) == ["theirs/python", "theirs.model"]


def test_a_component_alone_with_a_built_in_objective(folder: Path) -> None:
    """Without a built-in reward: the component is all that is learned, normalised over the batch if it says so."""
    components = "[{_target_: examples/your_own_code.py:oxygen_share, weight: 3.0, normalize_fn: norm}]"
    words = [f"reward.components={components}", "reward.force_field=null", "train.objective=fed_grpo"]
    words += ["train.force_adv_weight=0", "train.stability_adv_weight=0"]
    module, _ = build_module(load_config("your_own_code", [*SHORT, *words], Path("examples")))
    try:
        assert isinstance(module.objective, FedGRPO)
        assert module.objective.config.channel_weights == {"oxygen_share": 3.0}
        assert module.scorer.reward.scope == "per_batch"
    finally:
        module.close()


def test_any_calculator_of_ase() -> None:
    """In workers, the numbers of the calculator itself; also without the example's file."""
    structures, _ = example_molecules(per_group=2)
    target = {"_target_": "ase.calculators.lj.LennardJones", "sigma": 1.2, "rc": 12.0}
    field = build_force_field(target, {"workers": 2, "timeout": 30.0})
    try:
        results = field.evaluate(structures)
    finally:
        field.close()
    from atomrl.structures.listing import to_atoms

    for result, atoms in zip(results, to_atoms(structures), strict=True):
        atoms.calc = LennardJones(sigma=1.2, rc=12.0)
        assert result.reason is None
        assert result.energy == pytest.approx(atoms.get_potential_energy())
        np.testing.assert_allclose(result.forces, atoms.get_forces(), atol=1e-8)


BY_FILES = """
from pathlib import Path
import numpy as np
from ase.calculators.calculator import FileIOCalculator

class ByFiles(FileIOCalculator):
    implemented_properties = ["energy", "forces"]

    def write_input(self, atoms, properties=None, system_changes=None):
        np.savetxt(Path(self.directory) / "asked", atoms.positions)

    def read_results(self):
        found = np.loadtxt(Path(self.directory) / "answered")
        self.results = {"energy": float(np.square(found).sum()), "forces": -2 * found}
"""


def test_calculators_that_work_by_files_do_not_read_each_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each worker has a folder of its own, below the one that the user names or else a temporary one."""
    monkeypatch.chdir(tmp_path)
    Path("by_files.py").write_text(BY_FILES)
    structures, _ = example_molecules(per_group=3)
    target = {"_target_": "by_files.py:ByFiles", "command": "sleep 0.02; cp asked answered"}
    for place in ({}, {"directory": "mine"}):
        field = build_force_field({**target, **place}, {"workers": 2, "timeout": 30.0})
        try:
            energies = [result.energy for result in field.evaluate(structures)]
        finally:
            field.close()
        assert energies == pytest.approx(structures.positions.square().sum((1, 2)).tolist())
        assert {path.name for path in tmp_path.iterdir()} == {"by_files.py", *place.values()}
    assert len(list(Path("mine").glob("worker-*/answered"))) == 2


SPIN = """
from ase.calculators.calculator import Calculator

class Spin(Calculator):
    implemented_properties = ["energy", "forces"]

    def calculate(self, atoms=None, properties=None, system_changes=None):
        self.results = {"energy": 10 * atoms.info["charge"] + atoms.info["spin"], "forces": 0 * atoms.positions}
"""


def test_calculators_are_told_charge_and_spin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As UMA's own task is: a neutral molecule with an odd number of electrons is a doublet."""
    monkeypatch.chdir(tmp_path)
    Path("spin.py").write_text(SPIN)
    for numbers, spin in (([8, 1], 2), ([8, 1, 1], 1)):
        geometry = Geometry(np.array(numbers), np.arange(3.0 * len(numbers)).reshape(-1, 3))
        assert SinglePoint("spin.py:Spin", {}, str(tmp_path))(geometry)[0] == spin


def test_forces_of_another_shape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A traceback once it came to a reward; of three atoms, (3, N) was read as (N, 3)."""
    monkeypatch.chdir(tmp_path)
    Path("turned.py").write_text(SPIN.replace("0 * atoms.positions", "0 * atoms.positions.T"))
    geometry = Geometry(np.array([6, 1, 1, 1]), np.arange(12.0).reshape(-1, 3))
    with pytest.raises(ValueError, match=r"gives forces of shape \(3, 4\), not \(4, 3\)"):
        SinglePoint("turned.py:Spin", {}, str(tmp_path))(geometry)


SLOW = """
import time
from ase.calculators.lj import LennardJones

class Slow(LennardJones):
    def __init__(self, **options):
        time.sleep(2)
        super().__init__(**options)
"""


def test_making_a_calculator_is_not_in_the_time_of_a_molecule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a network that loads for longer would be killed at each molecule's beginning, and begin anew."""
    monkeypatch.chdir(tmp_path)
    Path("slow.py").write_text(SLOW)
    structures, _ = example_molecules()
    field = build_force_field({"_target_": "slow.py:Slow"}, {"workers": 1, "timeout": 1.5})
    try:
        assert {result.reason for result in field.evaluate(structures)} == {None}
    finally:
        field.close()


def test_a_calculator_that_raises_costs_one_sample() -> None:
    """EMT knows no fluorine."""
    structures, _ = example_molecules()
    field = build_force_field({"_target_": "ase.calculators.emt.EMT"}, {"workers": 1, "timeout": 30.0})
    try:
        results = field.evaluate(structures)
    finally:
        field.close()
    failed = torch.tensor([result.reason is not None for result in results])
    assert torch.equal(failed, (structures.numbers == 9).any(1))
    assert {result.reason.partition(":")[0] for result in results if result.reason} == {"error"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["reward.type=gfn3"], "reward.type=gfn3: must be one of ani, mace, sevennet, uma, xtb, ase, dummy"),
        (["reward.type=ani", "reward.force_field=mace"], "name two force fields"),
        (["reward.type=ani", "reward.use_energy=true"], "give own (what it says itself), {symbol: eV} or null"),
        (
            ["reward.type=ani", "reward.use_energy=true", "reward.energy_atom_refs=omol"],
            "reward.energy_atom_refs=omol suits UMA alone",
        ),
        (["reward.use_energy=true", "reward.energy_atom_refs=omol"], "reward.energy_atom_refs=omol suits UMA alone"),
        (["reward.type=ase"], "reward.type=ase needs reward.force_field"),
        (["reward.force_field=gfn3"], "reward.force_field=gfn3: must be one of ani, mace, sevennet, uma, xtb"),
        (["reward.force_field={length: 1}"], "reward.force_field: a mapping needs _target_"),
        (["train.objective=gpro"], "train.objective=gpro: must be one of awm, fed_grpo, grpo, nft, rejection"),
        (["train.objective={clip: 1}"], "train.objective: a mapping needs _target_"),
        (["reward.components=[{_target_: xtb}, {_target_: dummy}]"], "reward.components: at most one of"),
        (
            ["reward.force_field={_target_: ase.calculators.emt.EMT}", "reward.use_energy=true"],
            "suits GFN2-xTB alone",
        ),
    ],
)
def test_what_a_configuration_cannot_mean(words: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        load_config("fed_grpo_config", words)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train.objective={_target_: examples/your_own_code.py:oxygen_share}"], "train.objective: "),
        (["train.objective={_target_: examples/your_own_code.py:Reinforce, speed: 1}"], "speed"),
        (["train.objective={_target_: ase.calculators.emt.EMT}"], "has no needs_reference"),
        (["reward.force_field={_target_: examples/your_own_code.py:Springs, lenght: 1}"], "lenght"),
        (["reward.force_field={_target_: examples/your_own_code.py:Sprigs}"], "did you mean Springs"),
        (
            ["reward.force_field={_target_: examples/your_own_code.py:Reinforce, channel_weights: {}}"],
            "examples/your_own_code.py:Reinforce takes no length",
        ),
        (
            ["reward.components=[{_target_: ase}, {_target_: atomrl.rewards.components.EnergyReward}]"],
            "nothing measures the metric e_above_hull of molecules: choose from ",
        ),
    ],
)
def test_what_is_wrong_with_code_of_the_users(words: list[str], message: str, folder: Path) -> None:
    """One line, before anything trains."""
    with pytest.raises(UserError) as caught:
        build_module(load_config("your_own_code", [*SHORT, *words], Path("examples")))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "command",
    [
        "check-reward examples/your_own_code.py:oxygen_share --molecules",
        "check-force-field examples/your_own_code.py:Springs",
        "check-force-field ase.calculators.lj.LennardJones",
        "check-force-field xtb",
        "check-backbone edm_qm9_small",
    ],
)
def test_checks(command: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(command.split())
    assert capsys.readouterr().out.rstrip().endswith("ok")


def test_a_force_field_whose_forces_are_wrong(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = (folder / "examples" / "your_own_code.py").read_text().replace("forces.sum(1)", "2 * forces.sum(1)")
    (folder / "wrong.py").write_text(wrong)
    with pytest.raises(SystemExit) as caught:
        main(["check-force-field", "wrong.py:Springs"])
    assert caught.value.code == 2
    assert "finite differences say" in capsys.readouterr().err


def test_the_run_says_what_it_was_trained_with(folder: Path) -> None:
    run = train(
        load_config("your_own_code", [*SHORT, "save_path=run", "dataloader.epoches=1"], Path("examples")), "own"
    )
    written = yaml.safe_load((run / "config.yaml").read_text())
    assert written["train"]["objective"]["_target_"] == "examples/your_own_code.py:Reinforce"
    assert read_config(run / "config.yaml").reward.own == [
        {"_target_": "examples/your_own_code.py:oxygen_share", "weight": 2.0}
    ]
