"""PoseBusters: what is asked, what fails, and what its absence says."""

import json
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from ase import Atom
from ase.build import molecule

from atomrl.chemistry.rdkit import PERCEIVED, PROTOCOL
from atomrl.cli import main
from atomrl.core.records import Structures
from atomrl.domains.molecule_panel import MoleculePanel
from atomrl.evaluation import pose_checks
from atomrl.evaluation.kept_samples import KeptSamples
from atomrl.evaluation.pose_checks import CHECKS, check_poses, pose_checker
from atomrl.workers.executor import TIMEOUT, Outcome
from atomrl.workers.local import as_workers

needed = pytest.mark.skipif(find_spec("posebusters") is None, reason="pip install 'atomrl[eval]'")


def batch(*names):
    """Molecules; a name with `!` has its second atom pulled away, one with `?` nowhere, one with `+` one H more."""
    parts = []
    for name in names:
        atoms = molecule(name.strip("!?+"))
        if name.endswith("+"):
            atoms.append(Atom("H", atoms.positions[0] + np.array([1.09, 0.0, 0.0])))
        if name.endswith("!"):
            atoms.positions[1] += np.array([0.0, 0.25, 0.25])
        elif name.endswith("?"):
            atoms.positions[1] = np.nan
        parts.append(
            Structures(
                torch.tensor(atoms.numbers)[None],
                torch.tensor(atoms.positions)[None],
                torch.ones(1, len(atoms), dtype=torch.bool),
            )
        )
    return Structures.concatenate(parts)


@needed
def test_a_sound_molecule_passes_and_a_bent_one_does_not():
    executor = pose_checker(as_workers(1))
    try:
        sound, bent = check_poses(batch("CH3CH2OH", "C6H6!"), executor)
    finally:
        executor.close()
    assert sound.reason is bent.reason is None
    assert set(sound.value) == set(CHECKS)
    assert all(sound.value.values())
    assert not all(bent.value.values())


@needed
def test_what_cannot_be_checked_is_not_passed():
    """RDKit takes no carbon of five bonds, so that nobody knows what its lengths should be."""
    executor = pose_checker(as_workers(1))
    try:
        (verdict,) = check_poses(batch("CH4+"), executor)
    finally:
        executor.close()
    assert {name for name, passed in verdict.value.items() if passed} == {"all_atoms_connected", "no_radicals"}


@needed
def test_bonds_are_those_of_the_profile():
    """The table knows no bond of boron and fluorine, so that boron trifluoride is four pieces to it."""
    for profile, passed in ((PROTOCOL, False), (PERCEIVED, True)):
        executor = pose_checker(as_workers(1), profile)
        try:
            whole, nowhere = check_poses(batch("BF3", "CH4?"), executor, profile=profile)
        finally:
            executor.close()
        assert all(whole.value.values()) == passed
        assert nowhere.value is None or not all(nowhere.value.values())


@needed
def test_the_table_counts_who_passes_all():
    with MoleculePanel(workers=1, poses=5) as panel:
        table = panel.judge(batch("CH3CH2OH", "C6H6!", "H2O", "CH4", "CH4?")).further["PoseBusters"]
    assert table.evaluator == "PoseBusters"
    assert table.summary["all_checks"].value == 0.6
    assert list(table.summary) == ["all_checks", *CHECKS]


@needed
def test_an_evaluation_checks_as_many_as_it_is_asked_to(tmp_path):
    words = ["evaluate", "--num-molecules", "4", "--time-step", "20", "--output", str(tmp_path / "table")]
    main([*words, "--device", "cpu", "evaluation.posebusters=3", "reward.workers=1"])
    table = json.loads((tmp_path / "table" / "evaluation_PoseBusters.json").read_text())
    assert table["metrics"]["all_checks"]["columns"]["base"]["denominator"] == 3


@needed
def test_a_stopped_evaluation_checks_only_what_is_missing(tmp_path, monkeypatch):
    """It is interrupted after two lots; the command that goes on checks the rest, to the table of one that was not."""
    asked, verdicts = [], pose_checks._verdicts

    def watched(structures, executor, profile):
        asked.append(len(structures))
        if len(asked) == 3:
            raise KeyboardInterrupt
        return verdicts(structures, executor, profile)

    monkeypatch.setattr(pose_checks, "LOT", 4)
    words = ["evaluate", "--num-molecules", "10", "--time-step", "20", "--device", "cpu", "reward.workers=1"]
    words.append("evaluation.posebusters=10")
    main([*words, "--output", str(tmp_path / "straight")])
    monkeypatch.setattr(pose_checks, "_verdicts", watched)
    with pytest.raises(SystemExit) as ended:
        main([*words, "--output", str(tmp_path / "cut")])
    assert ended.value.code == 130
    main([*words, "--output", str(tmp_path / "cut")])
    assert asked == [4, 4, 2, 2]
    name = "evaluation_PoseBusters.json"
    first, second = (json.loads((tmp_path / run / name).read_text())["metrics"] for run in ("straight", "cut"))
    assert first == second
    assert not (tmp_path / "cut" / "unfinished").exists()


@needed
def test_a_lot_whose_worker_was_lost_is_checked_again(tmp_path, monkeypatch):
    kept, molecules = KeptSamples(tmp_path), batch("CH3CH2OH", "H2O")

    class Losing:
        workers, asked, reason = 1, 0, TIMEOUT

        def map(self, items):
            self.asked += 1
            return [Outcome(None, self.reason) if self.reason else Outcome({"no_radicals": True}, None) for _ in items]

    executor = Losing()
    assert [one.reason for one in check_poses(molecules, executor, kept)] == [TIMEOUT] * 2
    executor.reason = None
    for workers in (1, 40):  # how many there are changes nothing that is kept
        executor.workers = workers
        assert check_poses(molecules, executor, kept) == [Outcome({"no_radicals": True}, None)] * 2
    assert executor.asked == 2
    monkeypatch.setattr(pose_checks, "VERSION", pose_checks.VERSION + 1)
    check_poses(molecules, executor, kept)
    assert executor.asked == 3


@pytest.mark.skipif(find_spec("posebusters") is not None, reason="it is installed")
def test_without_the_package_the_extra_is_named(tmp_path, capsys):
    words = ["evaluate", "--num-molecules", "1", "--time-step", "5", "--output", str(tmp_path / "table")]
    with pytest.raises(SystemExit) as ended:
        main([*words, "evaluation.posebusters=1"])
    assert ended.value.code == 2
    assert "evaluation.posebusters needs the package posebusters: pip install 'atomrl[eval]'" in capsys.readouterr().err
