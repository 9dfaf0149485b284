"""Gap and dipole moment by GFN2-xTB: against tblite itself, against physics, as components beside force and energy."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.units import Bohr, Hartree
from molecule_batches import from_atoms
from tblite.interface import Calculator

from atomrl.config import load_config
from atomrl.core.prompts import ungrouped
from atomrl.core.records import Structures
from atomrl.domains.molecule_reward import molecule_reward
from atomrl.force_fields.base import DIPOLE_MOMENT, HOMO_LUMO_GAP
from atomrl.force_fields.computed_once import ComputedOnce
from atomrl.force_fields.xtb import XTBForceField
from atomrl.measures.xtb_properties import XTBPropertiesProvider
from atomrl.rewards.reinforce import ReinforceReward
from atomrl.rewards.xtb_property import XTBPropertyReward
from atomrl.structures.listing import MOLECULES
from atomrl.training.run import train
from atomrl.util.errors import UserError

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
from small_backbone import TINY, write

DEBYE = 3.33564e-30 / 1.602176634e-19 * 1e10
"""e Å."""


def structures(*molecules: Atoms) -> Structures:
    return from_atoms(molecules)


@pytest.fixture(scope="module")
def gfn2():
    field = XTBForceField(workers=1)
    yield field
    field.close()


def properties(gfn2: XTBForceField, *names: str) -> dict[str, dict[str, float]]:
    found = gfn2.evaluate(structures(*[molecule(name) for name in names]))
    return {name: dict(result.properties) for name, result in zip(names, found, strict=True)}


@pytest.mark.parametrize("name", ["H2O", "CH3OH", "HCN", "C6H6"])
def test_values_are_those_of_tblite(gfn2: XTBForceField, name: str) -> None:
    """By the definition: orbitals that hold two electrons, and those that hold none."""
    atoms = molecule(name)
    calculator = Calculator("GFN2-xTB", atoms.numbers, atoms.positions / Bohr)
    calculator.set("verbosity", 0)
    result = calculator.singlepoint()
    energies, occupied = result.get("orbital-energies") * Hartree, result.get("orbital-occupations") > 1
    found = properties(gfn2, name)[name]
    assert found[HOMO_LUMO_GAP] == pytest.approx(energies[~occupied].min() - energies[occupied].max(), abs=1e-5)
    assert found[DIPOLE_MOMENT] == pytest.approx(
        np.linalg.norm(result.get("dipole")) * Bohr / DEBYE, rel=1e-4, abs=1e-6
    )


def test_dipole_moments_of_chemistry(gfn2: XTBForceField) -> None:
    """Measured: water 1.85 D, ammonia 1.47, lithium fluoride 6.3; none where symmetry forbids one."""
    names = ["H2O", "NH3", "LiF", "N2", "F2", "CH4", "CO2"]
    found = {name: one[DIPOLE_MOMENT] for name, one in properties(gfn2, *names).items()}
    assert found["H2O"] == pytest.approx(1.85, abs=0.6)
    assert found["NH3"] == pytest.approx(1.47, abs=0.6)
    assert found["LiF"] == pytest.approx(6.3, abs=0.6)
    assert max(found[name] for name in ("N2", "F2", "CH4", "CO2")) < 1e-3
    assert found["LiF"] > found["H2O"] > found["NH3"]


def test_gaps_of_chemistry(gfn2: XTBForceField) -> None:
    """Fluorine's empty orbital lies low; a conjugated ring is softer than a saturated hydrocarbon; a radical has a
    half-filled orbital.
    """
    found = {name: one[HOMO_LUMO_GAP] for name, one in properties(gfn2, *["F2", "CH4", "C6H6", "C2H4", "C2H6"]).items()}
    assert 0 < found["F2"] < found["C6H6"] < found["C2H4"] < found["C2H6"] < found["CH4"]


def test_a_molecule_may_be_turned(gfn2: XTBForceField) -> None:
    atoms = molecule("CH3OH")
    turned = atoms.copy()
    turned.rotate(40, (1, 2, 3))
    turned.positions += [3.0, -2.0, 1.0]
    one, other = gfn2.evaluate(structures(atoms, turned))
    assert one.properties == pytest.approx(other.properties, abs=1e-5)


def reward(gfn2, *components: XTBPropertyReward) -> ReinforceReward:
    return ReinforceReward(components, listing=MOLECULES, totals=False, providers=[XTBPropertiesProvider(gfn2)])


def test_goals_targets_and_failures(gfn2: XTBForceField) -> None:
    crowded = molecule("H2O")
    crowded.positions[1] = crowded.positions[0]
    batch = structures(molecule("H2O"), crowded, Atoms("H"), molecule("F2"))
    components = [
        XTBPropertyReward(HOMO_LUMO_GAP, goal="maximise"),
        XTBPropertyReward(HOMO_LUMO_GAP, goal="minimise"),
        XTBPropertyReward(DIPOLE_MOMENT, target=1.5, weight=2.0),
    ]
    table = reward(gfn2, *components).score(batch, ungrouped(batch))
    assert table.reasons == (None, "overlap", "no_empty_orbital", None)
    gap, dipole = (table.diagnostics[name] for name in (HOMO_LUMO_GAP, DIPOLE_MOMENT))
    assert gap.isnan().tolist() == [False, True, True, False]
    torch.testing.assert_close(table.channels["homo_lumo_gap"], gap, equal_nan=True)
    torch.testing.assert_close(table.channels["homo_lumo_gap_#2"], -gap, equal_nan=True)
    torch.testing.assert_close(table.channels["dipole_moment"], -((dipole - 1.5) ** 2), equal_nan=True)
    assert dipole[2] == 0  # an atom has none, and that is no failure


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"property": "gap", "goal": "maximise"}, "must be homo_lumo_gap or dipole_moment"),
        ({"property": "dipole_moment"}, "needs either goal"),
        ({"property": "dipole_moment", "goal": "maximise", "target": 1.0}, "needs either goal"),
        ({"property": "dipole_moment", "goal": "highest"}, "must be maximise or minimise"),
        ({"property": "dipole_moment", "target": "high"}, "target of XTBPropertyReward"),
    ],
)
def test_what_cannot_be_meant(options: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        XTBPropertyReward(**options)
    assert "\n" not in str(caught.value)


class Counting:
    """A force field that counts what it computes."""

    elements = frozenset({1, 6, 8, 9})

    def __init__(self, force_field: XTBForceField) -> None:
        self.force_field, self.computed = force_field, 0

    def evaluate(self, batch: Structures) -> list:
        self.computed += len(batch)
        return self.force_field.evaluate(batch)


def test_the_last_samples_are_computed_once(gfn2: XTBForceField) -> None:
    counting = Counting(gfn2)
    once = ComputedOnce(counting)
    first, second = structures(molecule("H2O"), molecule("CH4")), structures(molecule("CH4"), molecule("F2"))
    results = once.evaluate(first)
    assert [one.energy for one in once.evaluate(first[torch.tensor([1, 0])])] == [one.energy for one in results][::-1]
    assert once.evaluate(first[torch.tensor([1])])[0] is results[1]
    assert counting.computed == 2
    assert once.evaluate(second)[0] is results[1]
    assert counting.computed == 3
    once.evaluate(first)
    assert counting.computed == 4  # water was forgotten


COMPONENTS = (
    "[{_target_: xtb},{_target_: atomrl.rewards.xtb_property.XTBPropertyReward, property: homo_lumo_gap,"
    " target: 5.0, weight: 0.5}]"
)


def test_one_calculation_serves_forces_and_properties(monkeypatch: pytest.MonkeyPatch) -> None:
    """The built-in reward and the component ask one force field, which computes each molecule once."""
    asked: list[int] = []
    evaluate = XTBForceField.evaluate
    monkeypatch.setattr(
        XTBForceField, "evaluate", lambda self, batch: asked.append(len(batch)) or evaluate(self, batch)
    )
    config = load_config("fed_grpo_config", [f"reward.components={COMPONENTS}", "reward.workers=1"])
    from atomrl.checkpoints.backbone import load_backbone

    made = molecule_reward(config, load_backbone("edm_qm9_small"))
    batch = structures(molecule("CH4"), molecule("H2O"))
    table = made.score(batch, ungrouped(batch))
    lost = made.score(replace(batch, positions=batch.positions + torch.nan), ungrouped(batch))
    made.close()
    assert asked == [2, 2]
    assert lost.diagnostics["homo_lumo_gap"].isnan().all()
    assert set(table.channels) == {"force", "stability", "homo_lumo_gap"}
    assert made.scope == "per_sample"


def test_a_training_beside_xtb(tmp_path: Path) -> None:
    write(tmp_path / "backbone")
    words = [*TINY, f"model.backbone={tmp_path / 'backbone'}", f"save_path={tmp_path / 'run'}"]
    folder = train(load_config("demo", [*words, f"reward.components={COMPONENTS}", "dataloader.epoches=1"]), "demo")
    (line,) = [json.loads(text) for text in (folder / "metrics.jsonl").read_text().splitlines()]
    assert {"force_reward_mean", "homo_lumo_gap_reward_mean", "homo_lumo_gap"} <= line.keys()
