"""Keyed random numbers: known answers, distribution, independence of the cut."""

import torch

from atomrl.core.random import key, keyed_normals, philox


def test_philox_matches_the_published_vectors() -> None:
    # Known answers of Philox4x32-10 from the Random123 distribution (kat_vectors).
    zeros = tuple(torch.zeros(1, dtype=torch.int64) for _ in range(4))
    assert [int(w) for w in philox(zeros, 0)] == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    ones = tuple(torch.full((1,), 0xFFFFFFFF) for _ in range(4))
    assert [int(w) for w in philox(ones, 0xFFFFFFFFFFFFFFFF)] == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]


def test_normals_have_the_moments_of_a_normal() -> None:
    x = keyed_normals(torch.arange(400), 50, 10, key(1, "test"), torch.float64).flatten()
    count = len(x)
    assert abs(float(x.mean())) < 4 / count**0.5
    assert abs(float(x.var()) - 1) < 4 * (2 / count) ** 0.5
    assert abs(float((x**4).mean()) - 3) < 4 * (96 / count) ** 0.5


def test_a_draw_does_not_depend_on_batch_padding_or_features() -> None:
    ids = torch.tensor([5, 900, 17])
    full = keyed_normals(ids, 12, 9, 3, torch.float64)
    assert torch.equal(keyed_normals(ids[1:2], 7, 9, 3, torch.float64), full[1:2, :7])
    assert torch.equal(keyed_normals(ids, 12, 8, 3, torch.float64)[..., :4], full[..., :4])
    assert not torch.equal(keyed_normals(ids, 12, 9, 4, torch.float64), full)
