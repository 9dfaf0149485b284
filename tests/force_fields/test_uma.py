"""UMA through fairchem, on a small random network; what is said where the weights cannot be had."""

import re
import subprocess
import sys
from pathlib import Path
from types import MappingProxyType

import pytest
from molecule_batches import from_atoms
from molecules import rattled

pytest.importorskip("fairchem.core", reason="the extra uma is not installed: pip install 'atomrl[uma]'")

from ase.build import molecule

from atomrl.checkpoints.backbone import load_backbone
from atomrl.config import load_config
from atomrl.core.prompts import ungrouped
from atomrl.domains.molecule_reward import molecule_reward
from atomrl.force_fields.build import build_force_field
from atomrl.force_fields.uma import UMAForceField
from atomrl.testing import check_force_field
from atomrl.util.errors import UserError

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("uma") / "random.pt", "omol")


def written(path: Path, task: str) -> Path:
    """A small random network with this task."""
    script = Path(__file__).with_name("uma_model.py")
    subprocess.run([sys.executable, "-W", "ignore", str(script), str(path), task], check=True)
    return path


@pytest.fixture(scope="module")
def field(weights: Path):
    made = UMAForceField(model_file=str(weights), batch_size=3, workers=1, device="cpu")
    yield made
    made.close()


def test_what_a_force_field_promises(field: UMAForceField) -> None:
    check_force_field(field, rattled(), step=2e-3)


def test_crystals(tmp_path_factory: pytest.TempPathFactory) -> None:
    """By the task `omat`: forces and stress, and a key out of the weights."""
    pytest.importorskip("pymatgen", reason="the extra crystals is not installed: pip install 'atomrl[crystals]'")
    from network_crystals import check

    from atomrl.force_fields.build import build_crystal_force_field, crystal_hull_file

    path = written(tmp_path_factory.mktemp("uma") / "omat.pt", "omat")
    chosen = {"_target_": "uma", "model_file": str(path)}
    assert crystal_hull_file(chosen) == "hull-uma.json"
    with (
        build_crystal_force_field(chosen, 1, "cpu", 2, gradients=True) as field,
        build_crystal_force_field(chosen, 1, "cpu", 2) as plain,
    ):
        assert re.fullmatch("uma-[0-9a-f]{12}", field.model_id)
        assert field.correction == "none"
        assert len(field.elements) == 89
        check(field, plain, step=2e-3)


def test_a_model_of_molecules_alone_is_no_force_field_of_crystals(weights: Path) -> None:
    pytest.importorskip("pymatgen", reason="the extra crystals is not installed: pip install 'atomrl[crystals]'")
    from atomrl.force_fields.uma import uma_crystals

    with pytest.raises(UserError, match="the model has no task omat: it knows omol"):
        uma_crystals(model_file=str(weights), workers=1, device="cpu")


def test_radicals_and_atoms_fail_alone_or_not(field: UMAForceField) -> None:
    """A single atom has no energy without the published ones; the molecules of its batch have theirs."""
    water, methyl, oxygen = molecule("H2O"), molecule("CH3"), molecule("O")
    found = field.evaluate(from_atoms([water, oxygen, methyl]))
    assert found[0].reason is found[2].reason is None
    assert found[1].reason.startswith("error: ValueError")
    assert found[2].flags == ("odd_electrons",)


def test_no_energies_of_atoms_without_the_published_weights(field: UMAForceField) -> None:
    with pytest.raises(UserError, match=r"give reward.energy_atom_refs=\{H: \.\.\., C: \.\.\.\} in eV, or null"):
        field.atom_energies()


@pytest.mark.parametrize("references", [{1: -13.6, 8: -2042.0}, {1: {0: -13.6, 1: 0.0}, 8: {0: -2042.0}}])
def test_published_energies_of_atoms(references: dict) -> None:
    from atomrl.force_fields.uma_task import neutral_atoms

    assert neutral_atoms(MappingProxyType(references)) == {"H": -13.6, "O": -2042.0}


def test_a_reward(weights: Path) -> None:
    """By its published name; energies relative to those that the user gives."""
    references = "{H: -13.6, C: -1029.8, N: -1484.9, O: -2042.0, F: -2713.0}"
    mapping = f"{{_target_: uma, model_file: {weights}, batch_size: 4}}"
    words = ["reward.type=uma", f"reward.force_field={mapping}", "reward.use_energy=true", "reward.workers=1"]
    made = molecule_reward(
        load_config("fed_grpo_config", [*words, f"reward.energy_atom_refs={references}", "device=cpu"]),
        load_backbone("edm_qm9_small"),
    )
    batch = rattled()
    table = made.score(batch, ungrouped(batch))
    made.close()
    assert table.channels["force"].isfinite().all()
    assert table.channels["energy"].isfinite().all()
    config = load_config("fed_grpo_config", [*words, "reward.energy_atom_refs=omol", "device=cpu"])
    with pytest.raises(UserError, match="the energies of atoms of UMA's task omol"):
        molecule_reward(config, load_backbone("edm_qm9_small"))


def test_weights_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One line that says what to do."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("FAIRCHEM_CACHE_DIR", str(tmp_path))
    settings = {"workers": 1, "timeout": 30.0, "device": "cpu"}
    with pytest.raises(UserError, match=r"its weights are gated: accept the licence at .* set HF_TOKEN") as caught:
        build_force_field("uma", settings)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="there is no model uma-x; there are uma-s"):
        build_force_field({"_target_": "uma", "model": "uma-x"}, settings)
    with pytest.raises(UserError, match=r"no file nowhere\.pt"):
        build_force_field({"_target_": "uma", "model_file": "nowhere.pt"}, settings)
