"""`atomrl data reference` from the words to what a run compares with."""

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import bulk
from crystal_models import small_vae
from made_sets import CRYSTALS, write_csv, write_entries
from pymatgen.io.ase import AseAtomsAdaptor

from atomrl.checkpoints.crystal import CrystalBackbone, save_crystal_backbone
from atomrl.chemistry.hull import Hull
from atomrl.cli import main
from atomrl.config.crystals import CrystalReward
from atomrl.data.crystal_reference import CrystalReference
from atomrl.data.packed_crystals import PackedCrystals
from atomrl.data.prototype_set import ASSETS, load_prototypes
from atomrl.data.reference_file import FEATURES_FILE, REFERENCE_FILE, load_features, save_reference
from atomrl.domains.crystal_judges import CrystalJudges
from atomrl.networks.dit import DiT, DiTConfig
from atomrl.reference import command
from atomrl.reference.command import Plan, keep_features, reference_command
from atomrl.reference.phases import read_phases
from atomrl.structures.crystals import to_pymatgen
from atomrl.util.errors import UserError

EMT = "{_target_: ase.calculators.emt.EMT}"
EMT_MAPPING = {"_target_": "ase.calculators.emt.EMT"}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


SCALED = """
from pathlib import Path

from ase.calculators.emt import EMT


class Scaled(EMT):
    def __init__(self, weights, log_file=None):
        super().__init__()
        self.log_file = log_file
        self.factor = float(Path(weights).read_text())

    def calculate(self, *arguments):
        super().calculate(*arguments)
        self.results["energy"] *= self.factor
        if self.log_file is not None:
            with Path(self.log_file).open("a") as file:
                print("calculated", file=file)
"""
"""A calculator with a file of weights, and perhaps one that it writes."""


def metals() -> dict:
    """Copper, gold, and two alloys of theirs."""
    made = AseAtomsAdaptor.get_structure
    alloy = made(bulk("Cu", "fcc", a=3.8, cubic=True))
    alloy.replace(0, "Au")
    return {
        "copper": made(bulk("Cu")),
        "gold": made(bulk("Au")),
        "alloy": alloy,
        "stretched": alloy.copy().apply_strain(0.05, inplace=False),
    }


def test_a_folder_of_entries_serves_a_reward_and_a_second_judge(tmp_path: Path) -> None:
    """By a calculator of ASE, whose hull has its own name."""
    known, out = write_entries(tmp_path / "metals.json", metals()), tmp_path / "metals"
    main(["data", "reference", str(known), "--output", str(out), "--force-field", EMT, "--workers", "1"])
    assert {path.name for path in out.iterdir()} == {"hull-EMT.json", "energies-EMT.jsonl", REFERENCE_FILE}
    section = CrystalReward(reference_dataset=str(out), force_field=EMT_MAPPING, workers=1)
    judges = CrystalJudges(section, small_vae(), "cpu")
    assert len(judges.reference.crystals) == 4
    with judges.rewarded_physics().force_field, judges.second(EMT_MAPPING).force_field:
        pass
    with pytest.raises(UserError, match=r"no hull at .*metals/hull\.json.* `atomrl data reference` makes"):
        judges.physics()
    with pytest.raises(UserError, match=r"EMT\(asap_cutoff=True\)"):
        judges.second({**EMT_MAPPING, "asap_cutoff": True})
    assert {entry.entry_id for entry in Hull.load(out / "hull-EMT.json").entries} == {
        "metals.json:copper",
        "metals.json:gold",
        "metals.json:alloy",
    }


def test_a_calculator_is_known_by_what_is_in_its_file_of_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not by where it lies: a copy serves, other weights in its place are refused, by the command and by a run."""
    known, out = write_entries(tmp_path / "metals.json", metals()), tmp_path / "metals"
    (tmp_path / "scaled.py").write_text(SCALED)
    weights, copy = tmp_path / "weights.txt", tmp_path / "elsewhere.txt"
    for path in (weights, copy):
        path.write_text("1.5")

    def reference(file: Path, source: Path = known) -> None:
        target = f"{{_target_: '{tmp_path}/scaled.py:Scaled', weights: '{file}'}}"
        main(["data", "reference", str(source), "--output", str(out), "--force-field", target, "--workers", "1"])

    def rewarded(file: Path) -> None:
        target = {"_target_": f"{tmp_path}/scaled.py:Scaled", "weights": str(file)}
        section = CrystalReward(reference_dataset=str(out), force_field=target, workers=1)
        CrystalJudges(section, small_vae(), "cpu").rewarded_physics().force_field.close()

    reference(weights)
    made = (out / "energies-Scaled.jsonl").read_bytes()
    reference(copy)
    assert (out / "energies-Scaled.jsonl").read_bytes() == made  # nothing was evaluated again
    rewarded(copy)
    weights.write_text("1.7")
    before, few = (
        (out / REFERENCE_FILE).read_bytes(),
        write_entries(tmp_path / "few.json", {"copper": metals()["copper"]}),
    )
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        reference(weights, few)
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert said.count("\n") == 1
    assert "the hull was computed with model_id" in said
    assert said.count("Scaled(weights='file ") == 2
    assert (out / REFERENCE_FILE).read_bytes() == before  # nor is the set that the hull belongs to written over
    with pytest.raises(UserError, match="another scale"):
        rewarded(weights)


def test_what_a_calculator_writes_makes_no_other_of_it(tmp_path: Path) -> None:
    known, out = write_entries(tmp_path / "metals.json", metals()), tmp_path / "metals"
    (tmp_path / "scaled.py").write_text(SCALED)
    weights, log = tmp_path / "weights.txt", tmp_path / "of.log"
    weights.write_text("1.5")
    target = f"{{_target_: '{tmp_path}/scaled.py:Scaled', weights: '{weights}', log_file: '{log}'}}"
    words = ["data", "reference", str(known), "--output", str(out), "--force-field", target, "--workers", "1"]
    main(words)
    assert log.read_text().startswith("calculated")
    made = (out / "hull-Scaled.json").read_bytes()
    main(words)
    assert (out / "hull-Scaled.json").read_bytes() == made


def test_nothing_is_written_over_before_a_hull_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also where the folder holds only energies of others, or what is known has no pure element."""
    out = tmp_path / "out"
    known = write_entries(tmp_path / "metals.json", metals())
    alloy = write_entries(tmp_path / "alloy.json", {"alloy": metals()["alloy"]})
    words = ["--output", str(out), "--workers", "1", "--force-field"]
    main(["data", "reference", str(known), *words, EMT])
    (out / "hull-EMT.json").unlink()
    before = (out / REFERENCE_FILE).read_bytes()
    for source, force_field, said in (
        (known, "{_target_: ase.calculators.emt.EMT, asap_cutoff: true}", "was begun with model_id"),
        (alloy, EMT, "none of the 1 crystals is a pure element"),
    ):
        (out / REFERENCE_FILE).write_bytes(b"as it was" + before)
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(["data", "reference", str(source), *words, force_field])
        assert ended.value.code == 2
        assert said in capsys.readouterr().err
        assert (out / REFERENCE_FILE).read_bytes() == b"as it was" + before


def test_relaxing_first_lowers_what_was_stretched(tmp_path: Path) -> None:
    stretched = {"stretched": metals()["stretched"], "copper": metals()["copper"], "gold": metals()["gold"]}
    known = write_entries(tmp_path / "metals.json", stretched)
    energies = {}
    for name, relax in (("given", []), ("relaxed", ["--relax"])):
        out = tmp_path / name
        reference_command([str(known), "--output", str(out), "--force-field", EMT, "--workers", "1", *relax])
        hull = Hull.load(out / "hull-EMT.json")
        energies[name] = {entry.entry_id: entry.energy_per_atom for entry in hull.entries}
    moved = [energies["given"][key] - energies["relaxed"][key] for key in energies["given"]]
    assert max(moved) > 0.05
    assert min(moved) > -1e-6


def test_a_relaxation_is_saved_more_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crystal takes up to 300 evaluations, and a stopped command loses what came after the last saving."""
    plans: list[Plan] = []
    for name in ("build_crystal_force_field", "begin_hull"):
        monkeypatch.setattr(command, name, lambda *_, **__: nullcontext())
    monkeypatch.setattr(command, "build_hull", lambda phases, force_field, plan, known: plans.append(plan))
    for words in ([], ["--relax"], ["--relax", "--batch-size", "100"]):
        reference_command(["prototypes", "--output", str(tmp_path), "--workers", "2", *words])
    assert [(plan.relax_steps, plan.at_once) for plan in plans] == [(0, 256), (300, 64), (300, 256)]


def test_a_run_compares_with_the_set_that_the_command_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the folder that is written is one of several sources, holds an earlier set, or has no val.csv."""
    for name in ("build_crystal_force_field", "begin_hull", "build_hull"):  # which other tests are about
        monkeypatch.setattr(command, name, lambda *_, **__: nullcontext())
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path / "set" / "train.csv", {name: CRYSTALS[name] for name in ("na", "cl")})
    write_csv(tmp_path / "more.csv", {"rock-salt": CRYSTALS["rock-salt"]})

    def known(*words: str) -> int:
        reference_command([*words, "--workers", "1"])
        return len(CrystalReference.load("./" + words[-1]).crystals)

    assert known("set") == 2
    assert not (tmp_path / "set" / REFERENCE_FILE).exists()
    assert known("set", "more.csv", "--output", "set") == 3
    assert known("set") == 2  # of the CSV file again, as its hull is
    assert known("prototypes", "--output", "prototypes") > 3000


def test_options_of_a_force_field_are_read_as_in_the_yaml_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A calculator got the text `1e1`, and its hull was that of other options than the run's."""
    seen: list[object] = []

    def build(chosen: object, *_: object, **__: object) -> None:
        seen.append(chosen)
        raise UserError("enough")

    monkeypatch.setattr(command, "build_crystal_force_field", build)
    for name in ("read_phases", "joined"):
        monkeypatch.setattr(command, name, lambda *_: None)
    words = ["known.csv", "--output", str(tmp_path), "--workers", "1", "--force-field"]
    for text in ("{_target_: ase.calculators.lj.LennardJones, rc: 1e1, 'model': ~/w.pt}", "chgnet"):
        with pytest.raises(UserError, match="enough"):
            reference_command([*words, text])
    assert seen == [{"_target_": "ase.calculators.lj.LennardJones", "rc": 10.0, "model": "~/w.pt"}, "chgnet"]


def test_known_stable_phases_are_near_0_by_chgnet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All prototypes of sodium, magnesium, oxygen and chlorine, as CSV files: the hull of the whole set, restricted."""
    shipped = load_prototypes()
    inside = [
        row
        for row in range(len(shipped))
        if set(shipped.numbers[shipped.offsets[row] : shipped.offsets[row + 1]].tolist()) <= {8, 11, 12, 17}
    ]
    structures = to_pymatgen(shipped.structures(torch.tensor(inside)))
    names = [f"{row:05d}" for row in inside]
    half = len(names) // 2
    for split, part in (("train", slice(half)), ("val", slice(half, None))):
        write_csv(tmp_path / "set" / f"{split}.csv", dict(zip(names[part], structures[part], strict=True)))
    main(["data", "reference", str(tmp_path / "set"), "--workers", "1"])
    assert "no pure phase" not in capsys.readouterr().out
    hull = Hull.load(tmp_path / "set" / "hull.json")
    assert hull.key.model_id == Hull.load(ASSETS / "hull.json").key.model_id
    formulas = [structure.composition for structure in structures]
    above, reasons = hull.energy_above_hull(formulas, shipped.energies[inside].tolist())
    assert set(reasons) == {None}
    expected = shipped.energies_above_hull[inside].numpy()
    np.testing.assert_allclose(above, expected, atol=2e-3)
    stable = expected <= 1e-5
    assert stable.sum() > 5
    assert above[stable].max() < 2e-3
    assert CrystalReference.load(str(tmp_path / "set")).name.startswith(f"{half} training crystals")


def test_features_are_kept_and_read_for_their_vae_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known, out, model = write_entries(tmp_path / "known.json"), tmp_path / "known", tmp_path / "model"
    vae = small_vae()
    save_crystal_backbone(model, CrystalBackbone(vae, DiT(DiTConfig(hidden=16, depth=1, heads=2)), 1.0, {2: 1}), {})
    phases = read_phases(str(known), 1)
    save_reference(out / REFERENCE_FILE, phases.crystals)
    computed = CrystalJudges(CrystalReward(reference_dataset=str(out), workers=1), vae, "cpu").features().references
    keep_features(out, str(model), phases.crystals)
    monkeypatch.setattr(PackedCrystals, "structures", None)  # nobody encodes them again
    judges = CrystalJudges(CrystalReward(reference_dataset=str(out), workers=1), vae, "cpu")
    kept = judges.features().references
    for name, values in computed.items():
        torch.testing.assert_close(kept[name], values)
    crystals = judges.reference.crystals
    assert load_features(out / FEATURES_FILE, vae, crystals.select(np.array([0, 1]))) is None
    assert load_features(out / FEATURES_FILE, small_vae(), crystals) is None  # other random weights
    (out / FEATURES_FILE).write_bytes(b"nonsense")
    with pytest.raises(UserError, match=r"cannot read the features .*; delete the file"):
        load_features(out / FEATURES_FILE, vae, crystals)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "--output: give a folder for what is made of nowhere"),
        (["prototypes"], "--output: give a folder for what is made of prototypes"),
        (["nowhere", "--output", "out"], "nowhere: no such folder, and no name of a file of crystals"),
        (["nowhere.csv", "--output", "out"], "cannot read the crystals nowhere.csv"),
        (["empty"], "no crystals in empty: a folder needs train.csv"),
        (["known.csv", "--output", "out", "--force-field", "xtb"], "--force-field=xtb: must be one of chgnet, mace"),
        (["known.csv", "--output", "out", "--force-field", "[1]"], "--force-field [1]: neither a name nor a mapping"),
        (["known.csv", "--output", "out", "--force-field", "{a: 1}"], "--force-field: {'a': 1} is no mapping with"),
        (
            ["known.csv", "--output", "out", "--force-field", "{_target_: mace}"],
            "of a model: name it as {_target_: mace,",
        ),
        (["known.csv", "--output", "out", "--workers", "0"], "the number of workers must be at least 1"),
        (["known.csv", "--output", "out", "--batch-size", "0"], "batch_size must be a whole number from 1"),
        (["known.csv", "--output", "known.csv/out"], "cannot create known.csv/out"),
        (["header.csv", "--output", "out"], "header.csv has no row that holds a crystal: it has no rows; give each"),
    ],
)
def test_what_a_user_can_get_wrong(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("header.csv").write_text("material_id,cif\n")
    write_csv(Path("known.csv"), {name: CRYSTALS[name] for name in ("na", "cl")})
    with pytest.raises(SystemExit) as stopped:
        main(["data", "reference", *words])
    said = capsys.readouterr().err
    assert stopped.value.code == 2
    assert message in said
    assert said.count("\n") == 1


def test_a_damaged_reference_set_is_one_line(tmp_path: Path) -> None:
    (tmp_path / REFERENCE_FILE).write_bytes(b"nonsense")
    with pytest.raises(UserError, match=r"cannot read the reference set .*; make it again: atomrl data reference"):
        CrystalReference.load(str(tmp_path))
