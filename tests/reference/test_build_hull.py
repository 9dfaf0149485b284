"""A hull of known crystals: resumed, of one force field alone, and honest about what it lacks."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_sets import CRYSTALS, Formulas, write_csv, write_entries
from pymatgen.core import Composition

from atomrl.chemistry.hull import Hull
from atomrl.core.records import Structures
from atomrl.force_fields.crystals import CrystalEvaluation
from atomrl.measures.physics import HullProvider
from atomrl.reference import command
from atomrl.reference.command import Plan, begin_hull
from atomrl.reference.phases import Phases, joined, read_phases
from atomrl.util.errors import UserError


def build_hull(phases: Phases, field: Formulas, plan: Plan) -> str:
    return command.build_hull(phases, field, plan, begin_hull(phases, field, plan))


@pytest.fixture(scope="module")
def phases(tmp_path_factory: pytest.TempPathFactory) -> Phases:
    place = tmp_path_factory.mktemp("entries")
    return read_phases(str(write_entries(place / "known.json")), 1)


def test_the_lowest_phase_of_each_formula(phases: Phases, tmp_path: Path) -> None:
    said = build_hull(phases, Formulas(), Plan(tmp_path, "hull-formulas.json"))
    hull = Hull.load(tmp_path / "hull-formulas.json")
    energies = {entry.entry_id: entry.energy_per_atom for entry in hull.entries}
    assert energies == pytest.approx(
        {"known.json:na": -1.3, "known.json:cl": -1.9, "known.json:rock-salt": -3.5, "known.json:magnesia": -6.1}
    )
    assert hull.key.model_id == "formulas-1"
    assert hull.elements == {11, 17}
    above, reasons = hull.energy_above_hull([Composition("NaCl"), Composition("MgO")], [-3.0, -6.0])
    assert above[0] == pytest.approx(0.5)
    assert reasons == [None, "element_outside_hull"]
    assert "4 formulas of 5 crystals" in said
    assert "no pure phase of O, Mg: crystals with these elements shape no hull" in said


def test_interrupted_and_resumed_nothing_is_lost_or_repeated(
    phases: Phases, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = Plan(tmp_path, "hull.json", at_once=2)
    with pytest.raises(KeyboardInterrupt):
        build_hull(phases, Formulas(patience=3), plan)
    assert not (tmp_path / "hull.json").exists()
    with (tmp_path / "energies.jsonl").open("a") as file:
        file.write('["half of a li')  # killed while it wrote
    second = Formulas()
    build_hull(phases, second, plan)
    assert len(second.asked) == len(phases) - 2  # one whole chunk was saved
    assert "5 crystals, 2 done, 3 to do" in capsys.readouterr().out
    third = Formulas()
    build_hull(phases, third, plan)
    assert third.asked == []
    lines = (tmp_path / "energies.jsonl").read_text().splitlines()
    assert len(lines) == 1 + len(phases)


def test_more_crystals_later_cost_only_themselves(phases: Phases, tmp_path: Path) -> None:
    few = {name: CRYSTALS[name] for name in ("na", "cl")}
    first = read_phases(str(write_csv(tmp_path / "few.csv", few)), 1)
    more = {name: CRYSTALS[name] for name in ("rock-salt",)}
    second = read_phases(str(write_csv(tmp_path / "more.csv", more)), 1)
    plan = Plan(tmp_path / "out", "hull.json")
    build_hull(first, Formulas(), plan)
    before = Hull.load(tmp_path / "out" / "hull.json").key
    field = Formulas()
    build_hull(joined([first, second]), field, plan)
    assert field.asked == ["NaCl"]
    assert Hull.load(tmp_path / "out" / "hull.json").key.data_version != before.data_version


def test_lost_workers_and_exceptions_are_tried_again_and_other_failures_are_not(phases: Phases, tmp_path: Path) -> None:
    """An exception may be of a file that was missing, or of the user's own code, which has been mended since."""
    plan = Plan(tmp_path, "hull.json")
    failing = {"NaCl": "timeout", "MgO": "nonfinite_result", "Cl2": "error: FileNotFoundError: my.model"}
    said = build_hull(phases, Formulas(failing=failing), plan)
    assert "failures: timeout 2, error 1, nonfinite_result 1" in said
    again = Formulas()
    said = build_hull(phases, again, plan)
    assert sorted(again.asked) == ["Cl2", "NaCl", "NaCl"]
    assert "failures: nonfinite_result 1" in said


def test_energies_of_a_users_network_may_have_single_precision(phases: Phases, tmp_path: Path) -> None:
    class Single(Formulas):
        def evaluate(self, structures: Structures) -> list[CrystalEvaluation]:
            return [replace(result, energy=np.float32(result.energy)) for result in super().evaluate(structures)]

    build_hull(phases, Single(), Plan(tmp_path, "hull.json"))
    assert Hull.load(tmp_path / "hull.json").elements == {11, 17}


def test_energies_and_hulls_of_another_force_field_are_refused(phases: Phases, tmp_path: Path) -> None:
    plan, other = Plan(tmp_path, "hull.json"), Formulas()
    build_hull(phases, Formulas(), plan)
    other.model_id = "formulas-2"
    with pytest.raises(UserError, match="the hull was computed with model_id 'formulas-1', the energies") as refused:
        build_hull(phases, other, plan)
    both = f"delete {tmp_path / 'hull.json'} and {tmp_path / 'energies.jsonl'} to make them anew"
    assert both in str(refused.value)
    (tmp_path / "hull.json").unlink()
    with pytest.raises(UserError, match="was begun with model_id 'formulas-1', now it is 'formulas-2'"):
        build_hull(phases, other, plan)
    with pytest.raises(UserError, match="was begun with relax_steps '0', now it is '5'"):
        build_hull(phases, Formulas(), Plan(tmp_path, "hull.json", 5))
    (tmp_path / "energies.jsonl").write_text("{}\nnonsense\n")
    with pytest.raises(UserError, match="was begun with model_id None"):
        build_hull(phases, Formulas(), plan)
    header = json.dumps({"model_id": "formulas-1", "correction": "none", "relax_steps": "0"})
    (tmp_path / "energies.jsonl").write_text(f"{header}\nnonsense\n")
    with pytest.raises(UserError, match=r"cannot read the energies in .*, line 2: .*; delete the file"):
        build_hull(phases, Formulas(), plan)


def test_without_a_pure_element_there_is_no_hull(phases: Phases, tmp_path: Path) -> None:
    """Which is said before anything is evaluated."""
    salts = {name: CRYSTALS[name] for name in ("rock-salt", "magnesia")}
    compounds, field = read_phases(str(write_csv(tmp_path / "salts.csv", salts)), 1), Formulas()
    with pytest.raises(UserError, match=r"none of the 2 crystals is a pure element, .* --phases prototypes") as caught:
        build_hull(compounds, field, Plan(tmp_path, "hull.json"))
    assert "\n" not in str(caught.value)
    assert field.asked == []
    failing = Formulas(failing={"Na": "timeout", "Cl2": "timeout"})
    with pytest.raises(UserError, match=r"no pure element has an energy by formulas-1 \(failures: timeout 2\)"):
        build_hull(phases, failing, Plan(tmp_path / "other", "hull.json"))
    failing = Formulas(failing=dict.fromkeys(("Na", "Cl2", "NaCl", "MgO"), "timeout"))
    with pytest.raises(UserError, match=r"no crystal has an energy by formulas-1 \(failures: timeout 5\)"):
        build_hull(phases, failing, Plan(tmp_path / "none", "hull.json"))
    assert not (tmp_path / "hull.json").exists()


def test_relaxed_phases_have_the_energies_of_where_they_end(phases: Phases, tmp_path: Path) -> None:
    """The forces of this one are 0, so that they stay and are evaluated once."""
    field = Formulas()
    build_hull(phases, field, Plan(tmp_path, "hull.json", 3))
    assert len(field.asked) == 5
    settings = json.loads((tmp_path / "energies.jsonl").read_text().splitlines()[0])
    assert settings["relax_steps"] == "3"


def test_a_hull_says_whether_its_phases_were_relaxed(phases: Phases, tmp_path: Path) -> None:
    """In a table too; and is not replaced by one of the others, once the energies beside it are gone."""
    relaxed, plain = Plan(tmp_path, "hull.json", 3), Plan(tmp_path, "hull.json")
    build_hull(phases, Formulas(), relaxed)
    hull = Hull.load(relaxed.hull)
    assert hull.key.relaxed
    assert HullProvider(Formulas(), hull).description.endswith("of 4 phases that it relaxed")
    relaxed.energies.unlink()
    with pytest.raises(UserError, match=r"with relaxed True, the energies come with False.*; delete .*hull\.json and"):
        build_hull(phases, Formulas(), plain)
    assert not plain.energies.exists()
    record = json.loads(relaxed.hull.read_text())
    del record["key"]["relaxed"]  # as earlier versions wrote it
    relaxed.hull.write_text(json.dumps(record))
    assert HullProvider(Formulas(), Hull.load(relaxed.hull)).description.endswith("of 4 phases")
    build_hull(phases, Formulas(), plain)
    assert Hull.load(plain.hull).key.relaxed is False


def test_equal_crystals_are_evaluated_once(phases: Phases, tmp_path: Path) -> None:
    field = Formulas()
    build_hull(joined([phases, phases]), field, Plan(tmp_path, "hull.json"))
    assert len(field.asked) == len(phases)
    values = [json.loads(line)[1] for line in (tmp_path / "energies.jsonl").read_text().splitlines()[1:]]
    assert np.isfinite(values).all()
