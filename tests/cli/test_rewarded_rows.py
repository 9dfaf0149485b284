"""Which rows of the table are marked as rewarded in training."""

import pytest

from atomrl.checkpoints.backbone import load_backbone
from atomrl.config import load_config
from atomrl.domains import domain_of


def test_novelty_that_is_paid_for_is_marked_as_rewarded():
    """Also where it weighs nothing: then it is not. What must be unique too is paid for uniqueness."""
    for options, expected, unique in (
        ("weight: 0.25", True, False),
        ("weight: 0.0, unique: true", False, False),
        ("unique: true", True, True),
    ):
        parts = f"[{{_target_: xtb}}, {{_target_: atomrl.rewards.novelty.NoveltyReward, {options}}}]"
        config = load_config("demo", [f"reward.components={parts}"])
        paid = domain_of(config).rewarded(config)
        assert ({"novelty", "valid_unique_novel"} <= paid) == expected
        assert ({"uniqueness", "validity_x_uniqueness"} <= paid) == unique


@pytest.mark.parametrize(
    ("words", "marked"),
    [
        ("filters.enable_filtering=true", set()),
        ("filters.invalid_penalty_scale=2", {"validity"}),
        ("filters.enable_penalty=true", {"validity", "novelty"}),
        ("filters.duplicate_penalty_scale=1", {"uniqueness"}),
    ],
)
def test_what_the_filter_penalises_is_marked_as_rewarded(words, marked):
    """As by the documented configurations, whose tables said that nobody had asked for valid molecules."""
    paid = domain_of(config := load_config("demo_fed_grpo", [words])).rewarded(config)
    assert {"validity", "novelty", "uniqueness"} & paid == marked
    assert ({"validity_x_uniqueness", "valid_unique_novel"} <= paid) == bool(marked)


def test_what_no_component_of_crystals_is_paid_for_is_not_marked_as_rewarded():
    """One of weight 0 is computed and teaches nothing, one of negative weight is paid for the contrary."""
    package, own = "atomrl.rewards.components", "examples/custom_reward.py:atomic_density"
    for weight, expected in ((1.0, True), (0.0, False), (-1.0, False)):
        parts = [f"{{_target_: {package}.EnergyReward, weight: {weight}}}", f"{{_target_: {own}, weight: {weight}}}"]
        novel = f"{{_target_: {package}.CreativityReward}}"
        words = [f"reward.components=[{', '.join([*parts, novel])}]"]
        config = load_config("experiment/prototypes/rl_dng", words)
        paid = domain_of(config).rewarded(config)
        assert {"unique", "novel", "msun"} <= paid
        assert ({"stable", "reward_atomic_density"} <= paid) == expected == ("evaluation_failures" in paid)


@pytest.mark.parametrize(
    ("component", "marked"),
    [
        ("novelty.NoveltyReward", {"novel"}),
        ("novelty.NoveltyReward, unique: true", {"novel", "unique"}),
        ("components.EnergyReward, only: [unique]", {"unique", "stable", "metastable", "e_above_hull_median"}),
        ("metastability.MetastabilityReward", {"novel", "unique", "stable", "metastable", "e_above_hull_median"}),
    ],
)
def test_what_a_component_of_crystals_pays_for_is_marked_as_rewarded(component, marked):
    config = load_config(
        "experiment/prototypes/rl_dng", [f"reward.components=[{{_target_: atomrl.rewards.{component}}}]"]
    )
    paid = domain_of(config).rewarded(config)
    assert {"novel", "unique", "stable", "metastable", "e_above_hull_median"} & paid == marked
    assert not [name for name in paid if name.startswith("reward_")]


@pytest.mark.parametrize(
    ("overrides", "learned"),
    [
        ("reward.stability_weight=2", True),
        ("reward.stability_weight=2 reward.stability_channel=own train.stability_adv_weight=1", True),
        ("reward.stability_weight=2 reward.stability_channel=own", False),
        ("reward.atom_stability_weight=2 reward.use_energy=true train.force_adv_weight=0", False),
    ],
)
def test_stability_that_nothing_learns_from_is_said_to_be_so(overrides, learned, caplog):
    config = load_config("fed_grpo_config", overrides.split())
    domain = domain_of(config)
    domain.reward(config, load_backbone("edm_qm9_small")).close()
    assert ("scored, but not learned" in caplog.text) != learned
    assert ({"molecule_stability", "atom_stability"} <= domain.rewarded(config)) == learned
