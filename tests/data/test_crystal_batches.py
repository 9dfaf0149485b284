"""Batches of crystals: near in size, the same for (seed, step), augmented without changing the crystal."""

from itertools import islice

import numpy as np
import pytest
import small_crystal_set
import torch
from small_crystal_set import CRYSTALS, VALIDATION, packed

from atomrl.data.batches import SizedBatches
from atomrl.data.crystal_batches import ORIGIN, SizedCrystalBatches, augment, fixed_batches, rotations, settle
from atomrl.data.packed_crystals import load_splits
from atomrl.data.sized import sized_rows
from atomrl.evaluation.reconstruction import mismatches, structures_of_batch
from atomrl.structures.crystals import to_pymatgen
from atomrl.structures.tensors import cell_parameters
from atomrl.util.errors import UserError


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    straight = list(islice(SizedCrystalBatches(packed(), 3, seed=1), 7))
    later = next(iter(SizedCrystalBatches(packed(), 3, seed=1, first_step=5)))
    other = next(iter(SizedCrystalBatches(packed(), 3, seed=2, first_step=5)))
    assert [batch.step for batch in straight] == list(range(7))
    assert torch.equal(later.crystals.frac_coords, straight[5].crystals.frac_coords)
    assert torch.equal(later.crystals.cell, straight[5].crystals.cell)
    assert not torch.equal(other.crystals.cell, straight[5].crystals.cell)


def test_crystals_of_a_batch_are_near_in_size() -> None:
    batches = list(islice(SizedCrystalBatches(packed(), 2, seed=0), 4))  # an epoch: 2 crystals of 5 atoms, 6 of 2
    assert all(batch.mask.bool().all() for batch in batches)
    assert sorted(batch.mask.shape[1] for batch in batches) == [2, 2, 2, 5]


def test_the_order_is_that_of_molecules(qm9_set) -> None:
    rows = islice(sized_rows(qm9_set.sizes, 16, seed=3, first_step=10), 30)  # over the end of an epoch
    batches = islice(SizedBatches(qm9_set, 16, seed=3, first_step=10), 30)
    for (step, chosen), batch in zip(rows, batches, strict=True):
        assert step == batch.step
        assert batch.mask.sum(1).tolist() == qm9_set.sizes[chosen].tolist()


def test_rotations_are_proper_and_uniform() -> None:
    turned = rotations(torch.randn(4000, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    assert torch.allclose(turned @ turned.transpose(1, 2), torch.eye(3, dtype=torch.float64).expand(4000, 3, 3))
    assert torch.allclose(torch.linalg.det(turned), torch.ones(4000, dtype=torch.float64))
    assert turned.mean(0).abs().max() < 0.04
    assert (turned.square().mean(0) - 1 / 3).abs().max() < 0.03


def test_augmentation_describes_the_same_crystal() -> None:
    plain = packed().padded()
    changed = augment(plain, seed=0, step=4)
    assert mismatches(structures_of_batch(plain), structures_of_batch(changed)) == [None] * len(CRYSTALS)
    for before, after in zip(cell_parameters(plain.cell), cell_parameters(changed.cell), strict=True):
        assert torch.allclose(before, after, atol=1e-4)
    assert (changed.cell - plain.cell).abs().amax((1, 2)).min() > 0.1
    moved = (changed.frac_coords - plain.frac_coords)[:, 0]
    assert moved.abs().amax(1).min() > 0.01
    assert len({tuple(row) for row in moved.tolist()}) == len(CRYSTALS)
    assert ((changed.frac_coords >= 0) & (changed.frac_coords < 1)).all()
    assert (changed.frac_coords[plain.mask == 0] == 0).all()
    between = (changed.frac_coords - plain.frac_coords - moved[:, None])[plain.mask > 0]
    assert torch.allclose(between, between.round(), atol=1e-6)  # one translation for all atoms of a crystal


def test_a_settled_crystal_is_the_same_one_in_a_description_that_no_augmentation_changes() -> None:
    plain = packed().padded()
    settled, again = (settle(augment(plain, seed=0, step=step)) for step in (1, 2))
    assert mismatches(structures_of_batch(plain), structures_of_batch(settled)) == [None] * len(CRYSTALS)
    assert torch.allclose(settled.frac_coords, again.frac_coords, atol=1e-5)
    assert torch.allclose(settled.cell, again.cell, atol=1e-4)
    assert torch.allclose(settled.frac_coords[:, 0], torch.tensor(ORIGIN))
    assert (settled.frac_coords[plain.mask == 0] == 0).all()


def test_a_set_from_disk_is_split_and_kept_as_it_is(tmp_path) -> None:
    splits = load_splits(str(small_crystal_set.write(tmp_path / "set")))
    assert len(splits.train) == len(CRYSTALS) - VALIDATION
    assert splits.train.histogram() == {2: 4, 5: 2}
    crystals = to_pymatgen(structures_of_batch(splits.validation.padded()))
    for crystal, original in zip(crystals, CRYSTALS[-VALIDATION:], strict=True):
        assert crystal.species == original.species
        np.testing.assert_allclose(crystal.lattice.matrix, original.lattice.matrix, atol=1e-5)
        np.testing.assert_allclose(crystal.frac_coords, original.frac_coords, atol=1e-6)


def test_a_sample_of_all_sizes_is_the_same_for_a_seed() -> None:
    one, again = packed().draw(5, seed=0), packed().draw(5, seed=0)
    assert np.array_equal(one.lattices, again.lattices)
    assert len(packed().draw(100, seed=0)) == len(CRYSTALS)


def test_a_small_validation_set_is_one_batch() -> None:
    batches = fixed_batches(packed().select(np.arange(3)), 64, seed=0, count=2)
    assert [len(batch.mask) for batch in batches] == [3, 3]


def test_sources_that_cannot_be_are_refused(tmp_path) -> None:
    with pytest.raises(UserError, match=r"no crystals in .*nowhere: give `prototypes`, or a folder with"):
        load_splits(str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="batches of 9 out of 8 structures"):
        next(iter(SizedCrystalBatches(packed(), 9, seed=0)))
