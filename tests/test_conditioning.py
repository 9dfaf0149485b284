"""What a conditional model is asked for: drawn by size, keyed by group, in the model's units."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from atomrl.checkpoints.conditioning import conditioning_entries, conditioning_of
from atomrl.core.conditioning import Property, PropertyConditioning
from atomrl.core.prompts import PromptPlan, SizeDistribution
from atomrl.util.errors import UserError

RNG = np.random.Generator(np.random.PCG64(1))
SIZES = RNG.choice([5, 9, 18], 6000, p=[0.2, 0.5, 0.3])
VALUES = 3.0 * SIZES + np.where(RNG.random(6000) < 0.5, -1.0, 1.0) * RNG.uniform(4, 5, 6000)  # nothing in the middle
ALPHA = Property.of(SIZES, VALUES, "Bohr^3")
ASKED = PropertyConditioning(("alpha",), {"alpha": ALPHA})


def plan(groups: int = 6, each: int = 4, seed: int = 11, asked: PropertyConditioning = ASKED) -> PromptPlan:
    return PromptPlan(SizeDistribution({5: 1, 9: 3, 18: 2}), groups, each, seed, asked)


def test_drawn_values_are_distributed_as_those_of_the_set() -> None:
    uniforms = torch.from_numpy(RNG.random((20_000, 2)))
    for size in (5, 9, 18):
        drawn = ALPHA.draw(torch.full((20_000,), size), uniforms).numpy()
        known = VALUES[size == SIZES]
        assert known.min() <= drawn.min()
        assert drawn.max() <= known.max()
        assert drawn.mean() == pytest.approx(known.mean(), abs=4 * known.std() / 20_000**0.5 + 0.01)
        assert not np.any(np.abs(drawn - 3 * size) < 3.9)  # an empty bin is never drawn
        deciles = np.linspace(0.1, 0.9, 9)
        assert np.quantile(drawn, deciles) == pytest.approx(np.quantile(known, deciles), abs=0.2)
        assert float(ALPHA.mean_of(torch.tensor([size]))) == pytest.approx(known.mean(), abs=0.01)
    assert ALPHA.mean_of(torch.tensor([6])).isnan().all()


def test_a_size_with_one_structure_has_its_value() -> None:
    few = Property.of(np.array([3, 4, 4]), np.array([7.5, 1.0, 2.0]), "")
    assert few.draw(torch.tensor([3]), torch.tensor([[0.3, 0.9]]).double()).tolist() == [7.5]


def test_prompts_ask_in_the_models_units_and_alike_in_a_group() -> None:
    prompts = plan(groups=200).prompts(0)
    assert prompts.context is not None
    assert prompts.context.shape == (800, 1)
    groups = prompts.context.reshape(200, 4)
    assert torch.equal(groups, groups[:, :1].expand(200, 4))
    asked = ASKED.values(prompts.context)["alpha"]
    assert torch.all((asked - 3.0 * prompts.sizes).abs() < 5.01)
    mean, mad = VALUES.mean(), np.abs(VALUES - VALUES.mean()).mean()
    assert asked.numpy() == pytest.approx(prompts.context[:, 0].double().numpy() * mad + mean, abs=1e-4)


def test_values_are_a_function_of_seed_iteration_and_group() -> None:
    prompts, again, later, other = plan().prompts(3), plan().prompts(3), plan().prompts(4), plan(seed=12).prompts(3)
    assert torch.equal(prompts.context, again.context)
    assert not torch.equal(prompts.context, later.context)
    assert not torch.equal(prompts.context, other.context)
    rows = slice(8, 16)  # two of the groups, alone
    sizes, ids = prompts.sizes[rows], prompts.group_ids[rows]
    assert torch.equal(ASKED.context(sizes, ids, prompts.seed, prompts.iteration), prompts.context[rows])
    shared = plan().share(prompts, 1, 2)
    assert torch.equal(shared.context, prompts.context[prompts.group_ids % 2 == 1])


def test_given_values_are_the_same_for_all() -> None:
    both = PropertyConditioning(("alpha", "gap"), {"alpha": ALPHA, "gap": replace(ALPHA, unit="Hartree")})
    prompts = plan(asked=both.asking({"gap": 20.0})).prompts(0)
    values = both.values(prompts.context)
    assert values["gap"].tolist() == pytest.approx([20.0] * len(prompts), abs=1e-4)
    assert len(values["alpha"].unique()) == 6


def test_what_nothing_is_known_of_is_refused() -> None:
    with pytest.raises(
        UserError, match="conditioned on alpha, not on gap; ask for what it is conditioned on, or take a model"
    ):
        ASKED.asking({"gap": 1.0})
    with pytest.raises(UserError, match="nothing with it says how values are distributed"):
        plan(asked=PropertyConditioning(("alpha",)))
    with pytest.raises(UserError, match="no structure of 6, 7 atoms"):
        PromptPlan(SizeDistribution({5: 1, 6: 1, 7: 1}), 1, 1, 0, ASKED)
    PromptPlan(SizeDistribution({5: 1, 6: 0}), 1, 1, 0, ASKED)
    PromptPlan(SizeDistribution({6: 1}), 1, 1, 0, ASKED.asking({"alpha": 3.0}))
    with pytest.raises(UserError, match="nothing to condition on"):
        Property.of(np.array([3, 4]), np.array([1.0, 1.0]), "")


def test_a_card_keeps_all_of_it() -> None:
    entries = conditioning_entries(ASKED)
    found = conditioning_of(entries, 1, "here")
    assert found is not None
    assert found.names == ASKED.names
    assert torch.equal(found.known["alpha"].counts, ALPHA.counts)
    prompts = plan(asked=found).prompts(5)
    assert torch.equal(prompts.context, plan().prompts(5).context)
    assert conditioning_of({}, 0, "here") is None
    assert conditioning_entries(None) == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conditioning": []}, "must name the 1 columns"),
        ({"conditioning": "alpha"}, "must name the 1 columns"),
        ({"properties": {"alpha": {}}}, "properties are damaged"),
        ({"properties": {"alpha": {**conditioning_entries(ASKED)["properties"]["alpha"], "mad": 0}}}, "above 0"),
        ({"properties": {"alpha": {**conditioning_entries(ASKED)["properties"]["alpha"], "low": [1]}}}, "each size"),
    ],
)
def test_damaged_cards(change: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        conditioning_of({**conditioning_entries(ASKED), **change}, 1, "here")
