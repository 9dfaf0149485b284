"""A calculator of ASE as the force field of a reward of crystals, above a hull with its own energies."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from crystal_models import small_vae
from pymatgen.core import Composition

from atomrl.chemistry.hull import Hull, HullEntry, HullKey
from atomrl.config import load_config
from atomrl.config.crystals import CrystalReward
from atomrl.core.records import Structures
from atomrl.domains.crystal_judges import CrystalJudges
from atomrl.force_fields.ase_crystals import ASECrystalForceField
from atomrl.force_fields.base import CRYSTALS
from atomrl.force_fields.build import build_crystal_force_field, check_force_field, crystal_hull_file
from atomrl.force_fields.crystals import CrystalEvaluation, CrystalForceField, failed
from atomrl.measures.measure import SoundSamples
from atomrl.structures.cells import Crystal
from atomrl.testing import check_crystal_force_field
from atomrl.user_code.trust import foreign_code
from atomrl.util.errors import UserError
from atomrl.workers.executor import EXCEPTION

EMT_TARGET = {"_target_": "ase.calculators.emt.EMT"}


def energy(atoms: Atoms) -> float:
    """EMT's, eV per atom."""
    atoms.calc = EMT()
    return float(atoms.get_potential_energy()) / len(atoms)


def structures_of(*crystals: Atoms) -> Structures:
    """As one batch."""
    return Structures.concatenate(
        [
            Structures(
                torch.tensor(atoms.numbers)[None],
                torch.tensor(atoms.positions)[None],
                torch.ones(1, len(atoms), dtype=torch.bool),
                torch.tensor(atoms.cell.array)[None],
            )
            for atoms in crystals
        ]
    )


@pytest.fixture
def hull(tmp_path: Path) -> str:
    """Of copper and gold, by EMT."""
    entries = [HullEntry(Composition(symbol), energy(bulk(symbol)), symbol) for symbol in ("Cu", "Au")]
    entries.append(HullEntry(Composition("Fe"), 0.0, "EMT does not know it"))
    Hull(HullKey("ase.calculators.emt.EMT()", "none", "two metals"), entries).save(tmp_path / "hull.json")
    return str(tmp_path / "hull.json")


def test_energies_above_a_hull_of_the_same_calculator(hull: str) -> None:
    """Two formulas by hand, and one that costs only its own score: EMT does not know iron."""
    alloy = Atoms("CuAu", scaled_positions=[(0, 0, 0), (0.5, 0.5, 0.5)], cell=[3.1, 3.1, 3.1], pbc=True)
    crystals = [alloy, bulk("Cu", a=3.7), bulk("Fe")]
    judges = CrystalJudges(CrystalReward(workers=2, force_field=EMT_TARGET, hull=hull), small_vae())
    [provider] = judges.providers(["e_above_hull"])
    try:
        found = provider.measure(SoundSamples(structures_of(*crystals), [{}] * 3))["e_above_hull"]
    finally:
        provider.close()
    copper, gold = energy(bulk("Cu")), energy(bulk("Au"))
    expected = [energy(alloy) - (copper + gold) / 2, energy(bulk("Cu", a=3.7)) - copper]
    assert found.values[:2].tolist() == pytest.approx(expected, abs=1e-6)
    assert found.reasons[:2] == (None, None)
    assert torch.isnan(found.values[2])
    assert found.reasons[2].startswith("error")


def test_the_hull_of_other_energies_is_refused(hull: str) -> None:
    """Other options of the calculator are other energies; and the shipped hull is CHGNet's."""
    other = CrystalReward(workers=1, force_field={**EMT_TARGET, "asap_cutoff": True}, hull=hull)
    with pytest.raises(UserError, match=r"EMT\(asap_cutoff=True\)"):
        CrystalJudges(other, small_vae()).providers(["e_above_hull"])


def test_an_evaluation_stays_with_chgnet(hull: str) -> None:
    judges = CrystalJudges(CrystalReward(workers=1, force_field=EMT_TARGET, hull=hull), small_vae())
    with judges.physics().force_field as force_field:
        assert force_field.model_id.startswith("chgnet")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["reward.force_field=xtb"],
            "reward.force_field=xtb: must be one of chgnet, mace, sevennet, uma, or a mapping",
        ),
        (["reward.force_field={length: 1}"], "reward.force_field: a mapping needs _target_"),
        (
            ["evaluation.second_judge=xtb"],
            "evaluation.second_judge=xtb: must be one of chgnet, mace, sevennet, uma, or",
        ),
        (["evaluation.second_judge={length: 1}"], "evaluation.second_judge: a mapping needs _target_"),
    ],
)
def test_what_a_configuration_cannot_mean(words: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        load_config("experiment/prototypes/rl_dng_grpo", words)
    assert message in str(caught.value)


def test_what_is_no_force_field() -> None:
    with pytest.raises(UserError, match="has no elements and no evaluate and no close and no model_id"):
        build_crystal_force_field({"_target_": "builtins.object"}, 1)


@pytest.mark.parametrize("key", ["reward.force_field", "evaluation.second_judge"])
def test_it_is_code_that_a_run_names(key: str) -> None:
    config = load_config("experiment/prototypes/rl_dng_grpo", [f"{key}={{_target_: ase.calculators.emt.EMT}}"])
    assert foreign_code(config.code) == ["ase.calculators.emt.EMT"]


def test_an_interpreter_and_a_model_are_code_that_a_run_names() -> None:
    judge = "{_target_: mace, python: mace/bin/python, model_file: my.model}"
    config = load_config("experiment/prototypes/rl_dng_grpo", [f"evaluation.second_judge={judge}"])
    assert foreign_code(config.code) == ["mace/bin/python", "my.model"]
    config = load_config("experiment/prototypes/rl_dng_grpo", ["evaluation.second_judge=sevennet"])
    assert foreign_code(config.code) == []


@pytest.mark.parametrize(
    ("chosen", "file"),
    [
        ("chgnet", "hull.json"),
        ("sevennet", "hull-sevennet-0.json"),
        ({"_target_": "mace", "python": "p", "model_file": "f"}, "hull-mace.json"),
        ("uma", "hull-uma.json"),
        (EMT_TARGET, "hull-EMT.json"),
        ({"_target_": "my/code.py:Potential"}, "hull-Potential.json"),
    ],
)
def test_each_force_field_has_a_hull_of_its_own(chosen, file: str) -> None:
    if chosen == "sevennet":
        pytest.importorskip("sevenn", reason="the extra sevennet is not installed: pip install 'atomrl[sevennet]'")
    assert crystal_hull_file(chosen) == file


def test_a_second_judge_without_its_hull_is_one_line() -> None:
    judges = CrystalJudges(CrystalReward(workers=1), small_vae())
    with pytest.raises(UserError, match=r"no hull at .*hull-EMT\.json: energies need one of the same force field"):
        judges.second(EMT_TARGET)
    with pytest.raises(UserError, match=r"evaluation\.second_judge=xtb: must be one of chgnet"):
        judges.second({"_target_": "xtb"})


def test_forces_and_stress_are_slopes_of_the_energy_in_workers() -> None:
    alloy = Atoms("CuAu", scaled_positions=[(0.02, 0, 0), (0.5, 0.47, 0.5)], cell=[3.1, 3.2, 3.3], pbc=True)
    with build_crystal_force_field(EMT_TARGET, 1, gradients=True) as field:
        check_crystal_force_field(field, structures_of(alloy, bulk("Cu", a=3.7)), step=1e-3)
    with build_crystal_force_field(EMT_TARGET, 1) as field:
        assert np.isnan(field.evaluate(structures_of(alloy))[0].forces).all()


@pytest.mark.parametrize(
    ("name", "value", "read"),
    [
        ("model", "w.model", True),
        ("model", "~/w.model", True),
        ("model", "~nobody-of-this-name/w.model", False),
        ("model", "word", False),  # without a suffix: there is a file of that name, too
        ("model", "./word", True),
        ("log_file", "w.model", False),
        ("lammps_log", "w.model", False),
        ("txt", "w.model", False),
        ("label", "~/w.model", False),
        ("label_encoder", "~/w.model", True),
        ("command", "~/w.model", False),
        ("model", "absent.model", False),
        ("model", "w" * 5000 + ".model", False),
    ],
)
def test_files_that_an_option_names(
    name: str, value: str, read: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is read is known by its content; all else by what is written."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.model").write_text("weights")
    (tmp_path / "word").write_text("something else")
    for options in ({name: value}, {"inner": {name: [value]}}):
        with ASECrystalForceField("some.Calculator", options, 1) as field:
            assert ("file " in field.model_id) == read
            assert (value in field.model_id) != read


def test_a_calculator_of_yours_is_known_by_its_code(tmp_path: Path) -> None:
    """Wherever its file lies; after a change of the code a hull of before is one of another force field."""
    found = []
    for folder, code in (("a", "class Mine: pass"), ("b", "class Mine: pass"), ("b", "class Mine: more = 1")):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "mine.py").write_text(code)
        with ASECrystalForceField(f"{tmp_path / folder}/mine.py:Mine", {"sigma": 2}, 1) as field:
            found.append(field.model_id)
    assert re.fullmatch(r"mine\.py [0-9a-f]{12}:Mine\(sigma=2\)", found[0])
    assert found[0] == found[1] != found[2]


class Broken(CrystalForceField):
    """Raises on each crystal, as a network does that a GPU has no memory for."""

    elements, model_id, correction = frozenset({26, 29}), "broken-1", "none"

    def __init__(self) -> None:
        super().__init__(self)

    def compute(self, crystals: Sequence[Crystal]) -> list[CrystalEvaluation]:
        return [failed(len(crystal.numbers), f"{EXCEPTION}OutOfMemoryError: CUDA") for crystal in crystals]

    def close(self) -> None:
        pass


def test_exceptions_of_any_force_field_are_named_once(caplog: pytest.LogCaptureFixture) -> None:
    field, crystals = Broken(), structures_of(bulk("Cu"), bulk("Fe"), bulk("Au"))
    for _ in range(2):
        assert [result.reason for result in field.evaluate(crystals)][1:] == [
            "error: OutOfMemoryError: CUDA",
            "element",
        ]
    assert caplog.messages == [
        "broken-1 raised an exception on 2 of 2 crystals, which have no score; the first: OutOfMemoryError: CUDA"
    ]


STRICT = """
from ase.calculators.emt import EMT

class Strict(EMT):
    def __init__(self):
        super().__init__()

class Patient(EMT):
    def __init__(self, timeout):
        super().__init__()

def nothing():
    return object()
"""


def test_a_time_limit_is_no_option_of_the_calculator(tmp_path: Path) -> None:
    """So it changes no hull; a calculator that names such an option gets it itself."""
    (tmp_path / "mine.py").write_text(STRICT)
    strict, patient = ({"_target_": f"{tmp_path}/mine.py:{name}"} for name in ("Strict", "Patient"))
    for chosen, limit, said in (
        (EMT_TARGET, 60.0, "EMT()"),
        ({**EMT_TARGET, "timeout": 600}, 600.0, "EMT()"),
        ({**strict, "timeout": 600}, 600.0, "Strict()"),
        ({**patient, "timeout": 600}, 60.0, "Patient(timeout=600)"),
    ):
        check_force_field(chosen, CRYSTALS)
        with build_crystal_force_field(chosen, 1) as field:
            assert field.computes.executor.timeout == limit
            assert field.model_id.endswith(said)
    with pytest.raises(UserError, match="takes no timeout"):
        check_force_field({**strict, "timeout": 600})  # of molecules: there it is `reward.timeout`
    with pytest.raises(UserError, match="nothing takes no timeout, which bounds calculators of ASE alone"):
        build_crystal_force_field({"_target_": f"{tmp_path}/mine.py:nothing", "timeout": 600}, 1)


@pytest.mark.parametrize("seconds", [0, "60", True, float("inf"), None])
def test_what_is_no_time_limit(seconds: object) -> None:
    with pytest.raises(UserError, match=r"reward\.force_field: timeout .* is not a time: give seconds per crystal"):
        check_force_field({**EMT_TARGET, "timeout": seconds}, CRYSTALS)


def test_it_needs_a_worker() -> None:
    with pytest.raises(UserError, match="got workers=0: set at least 1"):
        build_crystal_force_field(EMT_TARGET, 0)
