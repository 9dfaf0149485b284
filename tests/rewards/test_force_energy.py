"""The physical reward: published cases, gates, failures, options that no published case covers."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from atomrl.core.advantages import Groups
from atomrl.core.records import Prompts, Structures
from atomrl.force_fields.base import Evaluation
from atomrl.force_fields.xtb import XTBForceField, atom_energies
from atomrl.measures.forces import Physics, reference_energies
from atomrl.rewards.force_energy import ForceEnergyConfig, ForceEnergyReward, score_physics
from atomrl.testing import check_reward
from atomrl.util.errors import UserError

GOLDEN = json.loads((Path(__file__).parents[1] / "data" / "molecule_rewards.json").read_text())["terminal_reward"]
TYPES = (1, 6, 7, 8, 9)
NAN = float("nan")


def padded(rows, width):
    tensor = torch.zeros(len(rows), width, *torch.tensor(rows[0]).shape[1:], dtype=torch.float64)
    for row, values in enumerate(rows):
        tensor[row, : len(values)] = torch.tensor(values, dtype=torch.float64)
    return tensor


@pytest.fixture(scope="module")
def golden():
    """The published molecules with their forces and energies. Lists of types end with a molecule's last atom."""
    width = max(len(row) for row in GOLDEN["positions"])
    numbers = padded([[TYPES[kind] for kind in row] for row in GOLDEN["atom_types"]], width).long()
    structures = Structures(numbers, padded(GOLDEN["positions"], width), numbers > 0)
    energies = torch.tensor(GOLDEN["energies"], dtype=torch.float64)
    return structures, Physics(energies, padded(GOLDEN["forces"], width), (None,) * len(energies))


def water(count=1):
    numbers = torch.tensor([[8, 1, 1]]).repeat(count, 1)
    positions = torch.tensor([[[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]]]).repeat(count, 1, 1)
    return Structures(numbers, positions, numbers > 0)


def loose(count=1):
    """Water with one O-H bond too long to be one: not stable."""
    structures = water(count)
    positions = structures.positions.clone()
    positions[:, 1, 0] = 2.0
    return replace(structures, positions=positions)


def prompts(structures, groups=None):
    count = len(structures)
    ids = torch.arange(count)
    return Prompts(0, 0, structures.sizes, torch.tensor(groups or [0] * count), ids)


def physics(structures, energies, forces):
    """Given energies, and on every atom a force along x of the given size."""
    vectors = torch.zeros(*structures.mask.shape, 3, dtype=torch.float64)
    vectors[..., 0] = torch.tensor(forces, dtype=torch.float64)[:, None]
    reasons = tuple("scf" if math.isnan(energy) else None for energy in energies)
    return Physics(torch.tensor(energies, dtype=torch.float64), vectors * structures.mask[..., None], reasons)


PLAIN = ForceEnergyConfig(energy_atom_refs=None)


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: str([*case.values()][:3]))
def test_published_cases(golden, case):
    structures, given = golden
    gated = case["gate_if_stable"]
    config = ForceEnergyConfig(
        **GOLDEN["config"],
        force_aggregation=case["force_aggregation"],
        force_clip_threshold=case["force_clip_threshold"],
        force_only_if_stable=gated,
        energy_only_if_stable=gated,
        gate="published",
        energy_atom_refs=None,
    )
    table = score_physics(given, structures, torch.zeros(len(structures), dtype=torch.int64), config)
    measured = {
        "rewards": table.diagnostics["reward"],
        "force_rewards": table.channels["force"],
        "energy_rewards": table.channels["energy"],
        **table.diagnostics,
    }
    for name, values in case["out"].items():
        expected = torch.tensor(values, dtype=torch.float64)
        assert (measured[name] - expected).abs().max() <= 1e-5 * expected.abs().max().clamp(min=1), name
    assert table.reasons == (None,) * len(structures)


def test_own_channel_is_what_the_force_channel_loses(golden):
    structures, given = golden
    ids = torch.zeros(len(structures), dtype=torch.int64)
    together = ForceEnergyConfig(**GOLDEN["config"], energy_atom_refs=None)
    joint = score_physics(given, structures, ids, together)
    apart = score_physics(given, structures, ids, together.changed(stability_channel="own"))
    torch.testing.assert_close(apart.channels["force"] + apart.channels["stability"], joint.channels["force"])
    torch.testing.assert_close(apart.diagnostics["reward"], joint.diagnostics["reward"])
    torch.testing.assert_close(apart.channels["force"], -apart.diagnostics["rms_force"])


def test_energy_options():
    structures = water(3)
    given = physics(structures, [-30.0, -300.0, NAN], [0.0, 0.0, 0.0])
    config = ForceEnergyConfig(
        use_energy=True,
        energy_atom_refs={"H": -1.0, "O": -10.0},
        energy_transform_offset=2.0,
        energy_transform_scale=4.0,
        energy_transform_clip=5.0,
        force_weight=2.0,
        energy_weight=0.5,
    )
    table = score_physics(given, structures, torch.zeros(3, dtype=torch.int64), config)
    assert table.channels["energy"][:2].tolist() == [pytest.approx(1.0), 5.0]  # -(-18 / 3 + 2) / 4, and clamped
    assert table.channels["energy"][2].isnan()
    assert table.diagnostics["energy_per_atom"][0] == pytest.approx(-6.0)
    assert table.diagnostics["reward"][0] == pytest.approx(0.5)
    whole = config.changed(energy_normalize_by_atoms=False, energy_transform_clip=None)
    table = score_physics(given, structures, torch.zeros(3, dtype=torch.int64), whole)
    assert table.channels["energy"][0] == pytest.approx(4.0)  # -(-18 + 2) / 4


def test_missing_reference_is_a_reason():
    structures = water()
    config = ForceEnergyConfig(use_energy=True, energy_atom_refs={"H": -1.0})
    table = score_physics(physics(structures, [-30.0], [1.0]), structures, torch.zeros(1, dtype=torch.int64), config)
    assert table.reasons == ("no_reference",)
    assert table.channels["energy"].isnan().all()
    assert table.channels["force"].isfinite().all()


def test_force_aggregation_and_clip():
    structures = water()
    forces = torch.tensor([[[3.0, 4.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]], dtype=torch.float64)
    given = Physics(torch.zeros(1, dtype=torch.float64), forces, (None,))

    def force(**options):
        table = score_physics(given, structures, torch.zeros(1, dtype=torch.int64), PLAIN.changed(**options))
        assert table.diagnostics["rms_force"].item() == pytest.approx((26 / 3) ** 0.5)  # before any clip
        return table.channels["force"].item()

    assert force() == pytest.approx(-((26 / 3) ** 0.5))
    assert force(force_aggregation="max") == pytest.approx(-5)
    assert force(force_clip_threshold=2.0) == pytest.approx(-((5 / 3) ** 0.5))
    assert force(force_clip_threshold=2.0, force_aggregation="max") == pytest.approx(-2)


@pytest.mark.parametrize(
    ("gate", "expected", "reasons"),
    [
        ("floor", [-1.0, -3.0, -3.0, NAN, NAN, -4.0, -2.0], [None, None, None, "scf", "scf", None, None]),
        ("mask", [-1.0, -3.0, NAN, NAN, NAN, NAN, NAN], [None, None, "gated", "scf", "scf", "gated", "gated"]),
        ("published", [-1.0, -3.0, 0.0, NAN, NAN, 0.0, 0.0], [None, None, None, "scf", "scf", None, None]),
    ],
)
def test_gates(gate, expected, reasons):
    """Group 7: two stable, one unstable, a stable and an unstable failure. Group 9: no stable sample."""
    structures = Structures.concatenate([water(2), loose(1), water(1), loose(3)])
    forces = [1.0, 3.0, 2.0, NAN, NAN, 4.0, 2.0]
    given = physics(structures, [0.0, 0.0, 0.0, NAN, NAN, 0.0, 0.0], forces)
    ids = torch.tensor([7, 7, 7, 7, 7, 9, 9])
    config = PLAIN.changed(force_only_if_stable=True, gate=gate)
    table = score_physics(given, structures, ids, config)
    torch.testing.assert_close(
        table.channels["force"], torch.tensor(expected, dtype=torch.float64), equal_nan=True, rtol=0, atol=1e-12
    )
    assert list(table.reasons) == reasons


def test_floor_gate_with_only_failed_stable_samples_is_off():
    structures = Structures.concatenate([water(1), loose(1)])
    given = physics(structures, [NAN, 0.0], [NAN, 2.0])
    config = PLAIN.changed(force_only_if_stable=True)
    table = score_physics(given, structures, torch.zeros(2, dtype=torch.int64), config)
    assert table.channels["force"][1] == pytest.approx(-2.0)


def test_a_failure_leaves_the_stability_channel_finite():
    structures = water(2)
    given = physics(structures, [NAN, -1.0], [NAN, 1.0])
    config = ForceEnergyConfig(use_energy=True, stability_weight=1.5, stability_channel="own")
    table = score_physics(given, structures, torch.zeros(2, dtype=torch.int64), config)
    assert table.reasons == ("scf", None)
    assert table.channels["force"].isnan().tolist() == [True, False]
    assert table.channels["energy"].isnan().tolist() == [True, False]
    assert table.channels["stability"].tolist() == [1.5, 1.5]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"force_aggregation": "mean"}, "rms, max"),
        ({"gate": "soft"}, "floor, mask, published"),
        ({"stability_channel": "both"}, "force, own"),
        ({"energy_transform_scale": 0.0}, "positive"),
        ({"force_clip_threshold": -1.0}, "positive"),
        ({"stability_weight": -1.0}, "0 or more"),
        ({"energy_atom_refs": "dft"}, "xtb"),
        ({"energy_only_if_stable": True}, "use_energy"),
    ],
)
def test_wrong_options(options, words):
    with pytest.raises(UserError, match=words):
        ForceEnergyConfig(**options)


def test_reference_energies():
    numbers = torch.tensor([[8, 1, 1], [1, 0, 0], [9, 0, 0]])
    sums = reference_energies(numbers, {"H": -1.0, "O": -10.0})
    assert sums[:2].tolist() == [-12.0, -1.0]
    assert sums[2].isnan()
    with pytest.raises(UserError, match="symbol"):
        reference_energies(numbers, {"hydrogen": 1.0})


def test_group_worst():
    values = torch.tensor([1.0, -2.0, NAN, -9.0, 5.0])
    worst = Groups.of(torch.tensor([4, 4, 4, 4, 2])).worst(values, torch.tensor([True, True, True, False, False]))
    assert worst[:4].tolist() == [-2.0] * 4
    assert worst[4].isnan()


class Given:
    """A force field that knows the answers."""

    elements = frozenset({1, 8})

    def __init__(self, evaluations):
        self.evaluations = evaluations
        self.closed = False

    def evaluate(self, structures):
        return self.evaluations[: len(structures)]

    def close(self):
        self.closed = True


def test_reward_asks_its_force_field():
    structures = water(2)
    good = Evaluation(-1.0, torch.ones(3, 3).double().numpy(), None)
    field = Given([good, Evaluation.failed(3, "scf")])
    reward = ForceEnergyReward(field)
    table = reward.score(structures, prompts(structures))
    assert table.channels["force"][0] == pytest.approx(-(3**0.5))
    assert table.reasons == (None, "scf")
    assert table.fields["forces"].shape == (2, 3, 3)
    reward.close()
    assert field.closed


def test_with_real_physics(golden):
    """GFN2 on published molecules and on broken ones: finite or explained, and reproducible."""
    structures, _ = golden
    positions = structures.positions[:8].clone()
    positions[1, 0] = positions[1, 1]
    positions[2, 0, 0] = NAN
    positions[3, 0, 0] = 1e6
    broken = Structures(structures.numbers[:8], positions, structures.mask[:8])
    config = ForceEnergyConfig(use_energy=True, valence_underbond_soft_weight=0.1, stability_channel="own")
    reward = ForceEnergyReward(XTBForceField(workers=1), config)
    try:
        check_reward(reward, broken, prompts(broken))
        table = reward.score(broken, prompts(broken))
    finally:
        reward.close()
    assert table.reasons[:4] == (None, "overlap", "nonfinite", "exploded")
    assert table.channels["stability"].isnan().tolist() == [False, False, True] + [False] * 5
    bound = table.diagnostics["energy_per_atom"][0].item()
    assert -8 < bound < -2  # atomization energies of organic molecules
    assert set(atom_energies()) >= {"H", "C", "N", "O", "F"}
