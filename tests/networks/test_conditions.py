"""Conditions: what a context holds, what is dropped, what is refused."""

import pytest
import torch

from atomrl.networks.conditions import Condition, ConditionModule, guide
from atomrl.util.errors import UserError

GAP = Condition(name="band_gap", kind="value", mean=1.0, std=2.0)
GROUP = Condition(name="crystal_system", kind="category", categories=7)
FORMULA = Condition(name="formula", kind="composition")
SYSTEM = Condition(name="system", kind="chemical_system")


@pytest.fixture
def module() -> ConditionModule:
    torch.manual_seed(0)
    return ConditionModule([GAP, GROUP, FORMULA, SYSTEM], hidden=12, drop_prob=0.3)


@pytest.fixture
def context(module):
    return module.context(
        {
            "band_gap": [0.5, 3],
            "crystal_system": [0, 6],
            "formula": ["LiMnO2", "Li2Mn2O4"],
            "system": ["Li-Mn-O", "Na-Cl"],
        }
    )


def test_context_columns(module, context):
    assert context.shape == (2, module.columns) == (2, 202)
    assert context[:, :2].tolist() == [[0.5, 0.0], [3.0, 6.0]]
    composition = context[0, 2:102]
    assert composition[[3, 25, 8]].tolist() == [0.25, 0.25, 0.5]
    torch.testing.assert_close(context[1, 2:102], composition)  # the same reduced formula
    assert context[1, 102:].nonzero().flatten().tolist() == [11, 17]
    assert context[0, 102:].sum() == 3


def test_guidance_embedding_is_condition_then_null(module, context):
    embedded = module.guidance_embedding(context)
    keep, drop = torch.zeros(2, dtype=torch.bool), torch.ones(2, dtype=torch.bool)
    torch.testing.assert_close(embedded, torch.cat([module(context, keep), module(context, drop)]))
    torch.testing.assert_close(embedded[2], embedded[3])
    assert (embedded[0] - embedded[2]).abs().max() > 1e-3


def test_training_drops_at_its_chance(module, context):
    null = module.guidance_embedding(context)[2:]
    embedded = module.training_embedding(context, torch.tensor([0.29, 0.31]))
    torch.testing.assert_close(embedded[0], null[0])
    assert (embedded[1] - null[1]).abs().max() > 1e-3


def test_null_vectors_learn(module, context):
    module(context, torch.tensor([True, False])).sum().backward()
    assert all(encoder.null_embed.grad.abs().max() > 0 for encoder in module.encoders.values())


def test_values_are_standardised():
    torch.manual_seed(0)
    plain, scaled = ConditionModule([Condition(name="band_gap", kind="value")], 12), ConditionModule([GAP], 12)
    scaled.load_state_dict(plain.state_dict())
    keep = torch.zeros(1, dtype=torch.bool)
    torch.testing.assert_close(scaled(torch.tensor([[5.0]]), keep), plain(torch.tensor([[2.0]]), keep))


def test_guide():
    conditional, unconditional = torch.full((1, 2, 4), 3.0), torch.ones(1, 2, 4)
    assert torch.equal(guide(torch.cat([conditional, unconditional]), 2.0), torch.full((1, 2, 4), 5.0))
    assert torch.equal(guide(torch.cat([conditional, unconditional]), 1.0), conditional)


@pytest.mark.parametrize(
    ("condition", "value", "message"),
    [
        (GAP, "high", "must be a finite number"),
        (GROUP, 7, "no class 7"),
        (GROUP, 1.5, "no class 1.5"),
        (FORMULA, "Li(", "not a formula"),
        (FORMULA, "Fe0.95O", "'Fe0.95O' is not a formula of whole atoms"),
        (FORMULA, "Fe3+O2", "'Fe3.O2' is not a formula of whole atoms without charges"),
        (FORMULA, "Fe3+", "'Fe3.' is not a formula of whole atoms without charges"),
        (FORMULA, "Na0Cl", "'Na0Cl' is not a formula of whole atoms"),
        (FORMULA, "(NaCl)0", "is not a formula of whole atoms"),
        (FORMULA, "", "'' names no element"),
        (FORMULA, "5", "'5' names no element"),
        (FORMULA, "H1" + 21 * "0", "'H1000000000000000000000' has more than 1,000,000 atoms"),
        (FORMULA, "H" * 301, "'HHHHHHHH'... of 301 characters is not a formula"),
        (FORMULA, "XyO2", "not an element"),
        (FORMULA, "Fm", "not an element"),
        (SYSTEM, "Li-Qq", "not an element"),
    ],
)
def test_bad_values(condition, value, message):
    with pytest.raises(UserError, match=message):
        condition.row(value)


def test_bad_contexts(module, context):
    with pytest.raises(UserError, match="conditioned on band_gap"):
        module.context({"band_gap": [1.0]})
    with pytest.raises(UserError, match="202"):
        module(context[:, :-1], torch.zeros(2, dtype=torch.bool))
    with pytest.raises(UserError, match="one value per sample"):
        ConditionModule([GAP, GROUP], 8).context({"band_gap": [1.0], "crystal_system": [1, 2]})


@pytest.mark.parametrize("entries", [("a", "colour"), ("a", "category"), ("a", "value", 0.0, 0.0)])
def test_bad_conditions(entries):
    with pytest.raises(UserError, match="condition a"):
        Condition(**dict(zip(("name", "kind", "mean", "std"), entries, strict=False)))
