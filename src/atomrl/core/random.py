"""Random numbers keyed by what they are for, so that no way of cutting the work changes them.

A draw depends on (seed, iteration, sample or group id, step, purpose) and on nothing else: not on the rank, the
bucket, the padding or the micro-batch. A resumed run needs no saved generator state.

Normals come from Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), a counter-based
generator: element (sample, atom, feature) of a draw is a function of its own counter, computed for the whole batch
at once on any device. A torch.Generator per sample would cost one seeding and one kernel per sample and step.
"""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor

WORD = 0xFFFFFFFF
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10


def key(*parts: int | str) -> int:
    """63-bit key of a tuple of integers and names."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(device: torch.device | str, *parts: int | str) -> torch.Generator:
    """Generator on a device, seeded by `key(*parts)`; for draws that belong to a whole batch."""
    rng = torch.Generator(device=device)
    rng.manual_seed(key(*parts))
    return rng


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Philox4x32-10: four 32-bit words out of four 32-bit counters (int64 tensors of one shape) and a 64-bit key."""
    c0, c1, c2, c3 = counter
    k0, k1 = seed & WORD, (seed >> 32) & WORD
    for _ in range(ROUNDS):
        # int64 products wrap like unsigned ones; masking after the arithmetic shift leaves the true high word.
        first, second = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            ((second >> 32) & WORD) ^ c1 ^ k0,
            second & WORD,
            ((first >> 32) & WORD) ^ c3 ^ k1,
            first & WORD,
        )
        k0, k1 = (k0 + WEYL[0]) & WORD, (k1 + WEYL[1]) & WORD
    return c0, c1, c2, c3


def keyed_normals(ids: Tensor, atoms: int, features: int, seed: int, dtype: torch.dtype) -> Tensor:
    """Standard normals for each (id, atom, feature), independent of batch, padding and device.

    Args:
        ids: global sample or group numbers, (B,) int64, below 2^32.
        atoms: N.
        features: D.
        seed: key of the draw, from `key`.
        dtype: of the result; the bits are 32-bit uniforms in any case.

    Returns:
        (B, N, D) on the device of `ids`.
    """
    uniforms = _uniforms(ids, atoms, -(-features // 4), seed)
    radius, angle = torch.sqrt(-2 * torch.log(uniforms[..., :2])), 2 * math.pi * uniforms[..., 2:]
    normals = torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)], dim=-1)
    return normals.flatten(2)[..., :features].to(dtype)


def keyed_uniforms(ids: Tensor, features: int, seed: int) -> Tensor:
    """Uniform numbers in (0, 1) for each (id, feature), (B, features) float64; arguments as of `keyed_normals`."""
    return _uniforms(ids, 1, -(-features // 4), seed).flatten(1)[:, :features]


def _uniforms(ids: Tensor, atoms: int, blocks: int, seed: int) -> Tensor:
    """Four uniform numbers in (0, 1) for each (id, atom, block), (B, N, blocks, 4) float64."""
    shape = (len(ids), atoms, blocks)
    device = ids.device
    counter = (
        ids[:, None, None].expand(shape),
        torch.arange(atoms, device=device)[None, :, None].expand(shape),
        torch.arange(blocks, device=device)[None, None, :].expand(shape),
        torch.zeros(shape, dtype=torch.int64, device=device),
    )
    words = torch.stack(philox(counter, seed), dim=-1)
    return (words.to(torch.float64) + 0.5) * 2.0**-32
