"""What prompts ask a conditional crystal model for: joint with the size, keyed by group, kept by the card."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conditional_crystals import FORMULA, GAP, SYSTEM, backbone, known, write
from small_crystal_set import packed

from atomrl.checkpoints.crystal import load_crystal_backbone
from atomrl.config import load_config
from atomrl.core.prompts import PromptPlan, SizeDistribution
from atomrl.networks.conditions import Condition, context_of
from atomrl.policies.crystal_conditioning import CrystalConditioning, KnownCrystals
from atomrl.util.errors import UserError

ALL = CrystalConditioning((GAP, FORMULA, SYSTEM), known())
PARTS = [1, 100, 100]


def plan(asked: CrystalConditioning = ALL, groups: int = 40, sizes: tuple[int, ...] = (2, 5)) -> PromptPlan:
    return PromptPlan(SizeDistribution(dict.fromkeys(sizes, 1)), groups, 2, 3, asked)


def test_a_prompt_has_what_one_known_crystal_of_its_size_has() -> None:
    crystals = packed().padded()
    gaps = {"band_gap": torch.arange(8.0).double()}
    wanted = context_of((GAP, FORMULA, SYSTEM), crystals.numbers, gaps)
    prompts = plan().prompts(0)
    assert prompts.context.dtype == torch.float64
    assert torch.equal(prompts.context[::2], prompts.context[1::2])  # alike in a group
    row = prompts.context[:, 0].long()  # crystal k has a gap of k
    assert torch.equal(prompts.context, wanted[row])
    assert torch.equal(crystals.mask.sum(1)[row].long(), prompts.sizes)
    assert len(row.unique()) > 5
    assert not torch.equal(plan().prompts(1).context, prompts.context)
    later = plan().prompts(0)
    assert torch.equal(later.context, prompts.context)


def test_each_known_crystal_of_a_size_comes_as_often() -> None:
    sizes = torch.full((6000,), 2)
    context = ALL.context(sizes, torch.arange(6000), seed=1, iteration=0)
    counts = context[:, 0].long().bincount(minlength=8)
    assert counts.tolist() == [pytest.approx(1000, abs=120) if k in {0, 2, 3, 4, 6, 7} else 0 for k in range(8)]


def test_what_is_asked_is_the_same_for_all() -> None:
    prompts = plan(ALL.asking({"composition": "SrTiO3", "band_gap": "2.5"}), sizes=(5,)).prompts(0)
    gap, formula, system = prompts.context.split(PARTS, dim=1)
    assert gap.unique().tolist() == [2.5]
    shares = {number: share for number, share in enumerate(formula[0].tolist()) if share}
    assert shares == pytest.approx({8: 0.6, 22: 0.2, 38: 0.2})
    assert torch.equal(system > 0, formula > 0)  # follows from the composition
    assert ALL.asking({"band_gap": 2.5}).values(prompts.context)["band_gap"].tolist() == [2.5] * len(prompts)


def test_a_system_is_drawn_from_its_own_crystals() -> None:
    prompts = plan(ALL.asking({"system": "O-Ti-Sr"}), sizes=(5,)).prompts(0)
    gap, formula, _ = prompts.context.split(PARTS, dim=1)
    assert gap.unique().tolist() == [1.0]
    assert formula[0, 38] == pytest.approx(0.2)
    with pytest.raises(UserError, match="no training crystal of 2 atoms with system=O-Ti-Sr to take band_gap, composi"):
        plan(ALL.asking({"system": "O-Ti-Sr"}), sizes=(2, 5))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"gap": 3}, "conditioned on band_gap, composition, system, not on gap"),
        ({"composition": "XxO2"}, "condition composition: 'Xx' is not an element"),
        ({"composition": "Sr("}, "condition composition: 'Sr\\(' is not a formula"),
        ({"system": "Li-Qq"}, "condition system: 'Qq' is not an element"),
        ({"band_gap": "wide"}, "band_gap=wide: must be a finite number"),
        ({"composition": "LiF", "system": "Na-Cl"}, "composition=LiF, system=Na-Cl: these are not of the same elem"),
    ],
)
def test_what_cannot_be_asked_for(asked: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        ALL.asking(asked)


def test_nothing_is_drawn_where_nothing_is_known() -> None:
    alone = CrystalConditioning((GAP, FORMULA))
    with pytest.raises(UserError, match="conditioned on band_gap, composition, and nothing with it says"):
        plan(alone)
    context = plan(alone.asking({"band_gap": 1.0, "composition": "NaCl"})).prompts(0).context
    assert context.sum(1).unique().tolist() == [2.0]  # the gap, and shares that sum to 1
    with pytest.raises(UserError, match="no training crystal of 7 atoms to take band_gap, composition, system from"):
        plan(sizes=(2, 7))


def test_a_composition_needs_cells_that_can_hold_it() -> None:
    asked = ALL.asking({"composition": "Mg3Al2Si3O12", "band_gap": 1.0})
    message = "composition=Mg3Al2Si3O12: 20 atoms in a formula unit, and samples have 2, 5 atoms, none of which"
    with pytest.raises(UserError, match=message):
        plan(asked)
    assert len(plan(asked, sizes=(3, 40)).prompts(0)) == 80
    reduced = ALL.asking({"composition": "Sr2Ti2O6", "band_gap": 1.0})
    assert len(plan(reduced, sizes=(5, 10)).prompts(0)) == 80  # of SrTiO3, in cells of 5 atoms too


def test_a_formula_that_is_too_large_is_no_other_one() -> None:
    for typed, atoms, unit in (("H999", 999, "H"), ("Sr2Ti2O6", 10, "SrTiO3"), ("Na20Cl20", 40, "NaCl")):
        message = f"composition={typed}: {atoms} atoms, and the model makes 5 at most; .* composition={unit}$"
        with pytest.raises(UserError, match=message):
            plan(ALL.asking({"composition": typed, "band_gap": 1.0}))
    assert len(plan(ALL.asking({"composition": "Na2Cl2", "band_gap": 1.0}), sizes=(2,)).prompts(0)) == 80


def test_classes_have_names() -> None:
    group = Condition(name="group", kind="category", categories=2, classes=("cubic", "other"))
    about = KnownCrystals(torch.tensor([2, 2]), {"group": torch.tensor([0.0, 1.0]).double()})
    asked = CrystalConditioning((group,), about)
    assert plan(asked.asking({"group": "other"}), sizes=(2,)).prompts(0).context.unique().tolist() == [1.0]
    assert plan(asked, sizes=(2,)).prompts(0).context.unique().tolist() == [0.0, 1.0]
    with pytest.raises(UserError, match="condition group: there is no class 1, only cubic, other"):
        asked.asking({"group": "1"})


def test_classes_may_be_called_by_numbers() -> None:
    """A YAML's 225 is a float to the configuration."""
    group = Condition(name="group", kind="category", categories=3, classes=("12", "225", "0.5"))
    asked = load_config("demo", ["experiment=prototypes/rl_dng", "dataloader.context={group: 225}"]).dataloader.context
    sizes, ids = torch.tensor([2]), torch.tensor([0])
    for value in (asked["group"], 225, "225"):
        assert CrystalConditioning((group,)).asking({"group": value}).context(sizes, ids, 0, 0).tolist() == [[1.0]]
    assert CrystalConditioning((group,)).asking({"group": 0.5}).context(sizes, ids, 0, 0).tolist() == [[2.0]]
    with pytest.raises(UserError, match="condition group: there is no class 226, only 12, 225"):
        CrystalConditioning((group,)).asking({"group": 226.0})


def test_many_crystals_are_thinned_out_and_each_size_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atomrl.policies.crystal_conditioning.MOST", 20)
    sizes = np.array([2] * 90 + [7, 9, 11])
    found = KnownCrystals.of(sizes, {"band_gap": np.arange(93.0)}, None)
    assert found.sizes.tolist() == [2] * 17 + [7, 9, 11]
    assert found.numbers["band_gap"][-3:].tolist() == [90, 91, 92]


def test_a_card_keeps_all_of_it(tmp_path: Path) -> None:
    loaded = load_crystal_backbone(write(tmp_path))
    ours, theirs = backbone().conditioning, loaded.conditioning
    assert ours is not None
    assert theirs is not None
    assert theirs.names == ("band_gap", "composition", "system")
    assert torch.equal(plan(ours).prompts(4).context, plan(theirs).prompts(4).context)
    card = json.loads((tmp_path / "model.json").read_text())
    for damage in ({"sizes": "2 2"}, {"numbers": {}}, {"formulas": ""}, {"numbers": {"band_gap": "1 2 x 4 5 6 7 8"}}):
        changed = {**card, "known_crystals": {**card["known_crystals"], **damage}}
        (tmp_path / "model.json").write_text(json.dumps(changed))
        with pytest.raises(UserError, match="its card's known_crystals are damaged"):
            load_crystal_backbone(tmp_path)
