"""MACE, on a small random model; MACE_PYTHON names the interpreter of its environment (`make test-extras`)."""

import hashlib
import os
import pickle
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from ase import Atoms
from molecules import rattled

from atomrl.config import load_config
from atomrl.domains.molecule_reward import molecule_reward
from atomrl.force_fields import mace
from atomrl.force_fields.build import build_force_field
from atomrl.force_fields.mace import MACEForceField
from atomrl.structures.molecules import Geometry
from atomrl.testing import check_force_field
from atomrl.util.errors import UserError

PYTHON = os.environ.get("MACE_PYTHON", "")
needs_mace = pytest.mark.skipif(not PYTHON, reason="no environment with mace-torch: make test-extras")
SETTINGS = {"workers": 1, "timeout": 30.0, "device": "cpu"}


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mace") / "random.model"
    script = Path(__file__).with_name("mace_model.py")
    subprocess.run([PYTHON, "-W", "ignore", str(script), str(path)], check=True)
    return path


@needs_mace
@pytest.mark.timeout(900)
def test_what_a_force_field_promises(model_file: Path) -> None:
    field = MACEForceField(PYTHON, str(model_file), batch_size=3, workers=1, device="cpu")
    try:
        assert field.elements == {1, 6, 7, 8}
        assert field.atom_energies() == {"H": -13.6, "C": -1029.8, "N": -1484.9, "O": -2042.0}
        check_force_field(field, rattled())
    finally:
        field.close()
    assert_torch_load_is_safe(model_file.with_name("evil.pt"))


class StandIn(torch.nn.Module):
    """A model whose energy of a molecule is its spin, and its charge a hundred times."""

    atomic_numbers, r_max = torch.tensor([1, 8]), 5.0

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def forward(self, batch: list, training: bool, compute_force: bool) -> dict:
        energies = [config["total_spin"] + 100 * config["total_charge"] for config in batch]
        return {"energy": torch.tensor(energies), "forces": torch.zeros(sum(config["atoms"] for config in batch), 3)}


def test_charge_and_spin_reach_a_model_that_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under the names by which MACE's own calculator finds them; what is asked of mace-torch is a stand-in."""

    def config_from_atoms(atoms: Atoms, key_specification: SimpleNamespace, head_name: str) -> dict:
        return {"atoms": len(atoms)} | {name: atoms.info[key] for name, key in key_specification.info_keys.items()}

    batch = SimpleNamespace(to=lambda device: batch, to_dict=lambda: batch.configs)

    def from_data_list(configs: list) -> SimpleNamespace:
        batch.configs = configs
        return batch

    held = {
        "mace": {},
        "mace.data": {
            "AtomicData": SimpleNamespace(from_config=lambda config, **_: config),
            "KeySpecification": SimpleNamespace,
            "config_from_atoms": config_from_atoms,
        },
        "mace.tools": {"AtomicNumberTable": list},
        "mace.tools.torch_geometric": {"Batch": SimpleNamespace(from_data_list=from_data_list)},
    }
    for name, content in held.items():
        monkeypatch.setitem(sys.modules, name, module := ModuleType(name))
        vars(module).update(content)
    spec = spec_from_file_location("mace_task", Path(mace.__file__).with_name("mace_task.py"))
    task = module_from_spec(spec)
    spec.loader.exec_module(task)
    monkeypatch.setattr(task, "load", lambda *_: StandIn())
    water, hydroxyl = Geometry(np.array([8, 1, 1]), np.eye(3)), Geometry(np.array([8, 1]), np.eye(3)[:2])
    assert [energy for energy, _ in task.evaluate([water, hydroxyl], "any", None, "cpu")] == [1, 2]


@needs_mace
@pytest.mark.timeout(900)
def test_crystals(model_file: Path) -> None:
    """Their forces and stress, a key out of the file, and corrections only where they are asked for."""
    from network_crystals import check, crystals

    from atomrl.force_fields.build import build_crystal_force_field, crystal_hull_file
    from atomrl.force_fields.mp2020 import mp2020_correction
    from atomrl.structures.crystals import to_crystals

    chosen = {"_target_": "mace", "python": PYTHON, "model_file": str(model_file)}
    assert crystal_hull_file(chosen) == "hull-mace.json"
    with (
        build_crystal_force_field(chosen, 1, "cpu", 2, gradients=True) as field,
        build_crystal_force_field(chosen, 1, "cpu", 2) as plain,
        build_crystal_force_field({**chosen, "correction": "MP2020"}, 1, "cpu") as corrected,
    ):
        assert field.model_id == f"mace-{hashlib.sha256(model_file.read_bytes()).hexdigest()[:12]}"
        assert (field.elements, field.correction, corrected.correction) == ({1, 6, 7, 8}, "none", "MP2020")
        check(field, plain, step=1e-4)
        added = [mp2020_correction(crystal) for crystal in to_crystals(crystals())]
        assert max(added) < -0.5  # of oxygen
        pairs = zip(plain.evaluate(crystals()), corrected.evaluate(crystals()), strict=True)
        assert [after.energy - before.energy for before, after in pairs] == pytest.approx(added)


def test_an_unknown_correction(tmp_path: Path) -> None:
    from atomrl.force_fields.mace import mace_crystals

    (tmp_path / "my.model").touch()
    with pytest.raises(UserError, match="correction=mp20: must be one of none, MP2020"):
        mace_crystals("python", str(tmp_path / "my.model"), correction="mp20")


class Evil:
    def __reduce__(self):
        return os.mkdir, ("ran",)


def assert_torch_load_is_safe(place: Path) -> None:
    """mace-torch makes it unpickle anything; not in this process."""
    assert "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD" not in os.environ
    torch.save(Evil(), place)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(place)
    assert not Path("ran").exists()


@needs_mace
@pytest.mark.timeout(900)
def test_a_file_that_is_no_model_or_lacks_a_head(tmp_path: Path, model_file: Path) -> None:
    torch.save({"weights": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(UserError, match=r"MACE cannot be loaded: .* holds a dict, no MACE model"):
        MACEForceField(PYTHON, str(tmp_path / "other.pt"), workers=1, device="cpu")
    with pytest.raises(UserError, match="head=omol: the model has "):
        MACEForceField(PYTHON, str(model_file), head="omol", workers=1, device="cpu")


def test_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "my.model").touch()
    with pytest.raises(UserError, match="mace needs the interpreter of an environment with mace-torch"):
        build_force_field("mace", SETTINGS)
    for python, file, words in (
        ("python", "nowhere.model", "no file nowhere.model"),
        ("nowhere/python", str(tmp_path / "my.model"), "no such program"),
    ):
        with pytest.raises(UserError, match=words) as caught:
            build_force_field({"_target_": "mace", "python": python, "model_file": file}, SETTINGS)
        assert "\n" not in str(caught.value)


def test_an_environment_without_mace(tmp_path: Path) -> None:
    """This one: the message is the worker's last line."""
    import sys

    (tmp_path / "my.model").touch()
    with pytest.raises(UserError, match="No module named 'mace'"):
        MACEForceField(sys.executable, str(tmp_path / "my.model"), workers=1, device="cpu")


@needs_mace
@pytest.mark.timeout(900)
def test_a_reward(model_file: Path) -> None:
    """Its elements are compared with the backbone's before anything is sampled."""
    from atomrl.checkpoints.backbone import load_backbone

    mapping = f"{{_target_: mace, python: {PYTHON}, model_file: {model_file}}}"
    config = load_config("fed_grpo_config", ["reward.type=mace", f"reward.force_field={mapping}", "reward.workers=1"])
    with pytest.raises(UserError, match=r"reward\.type=mace does not know the backbone's elements F"):
        molecule_reward(config, load_backbone("edm_qm9_small"))
