"""A GPU against this machine's CPU, and on the GPU the package against the plain implementation."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from atomrl.checkpoints.backbone import load_backbone
from atomrl.evaluation.evaluate import SamplePlan, sample
from atomrl.force_fields.chgnet import CHGNetForceField
from atomrl.networks.edm import EDMNetwork
from atomrl.util.device import choose_device
from atomrl.util.errors import UserError
from benchmarks import edm
from benchmarks.crystal_source import STEPS, CrystalSource, sound
from benchmarks.edm import Case
from benchmarks.timing import Ratio, interleaved

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Size:
    """How much is done.

    Attributes:
        many: molecules of each of four groups on the GPU alone.
        few: the same on GPU and CPU.
        steps: T of the molecules' walks.
        crystals: sampled, and evaluated as far as they are sound.
    """

    many: int = 64
    few: int = 32
    steps: int = 20
    crystals: int = 320


QUICK = Size(many=2, few=2, steps=10, crystals=16)


@dataclass(frozen=True)
class Card:
    """What computed, and the most memory that it held at once.

    Attributes:
        name: as torch knows it.
        peak: bytes.
    """

    name: str
    peak: int

    def line(self) -> str:
        """One row under `timing.HEADER`, whose columns do not fit it."""
        return f"{self.name}, torch {torch.__version__}: at most {self.peak / 1e9:.2f} GB of its memory"


def require_gpu() -> torch.device:
    """The GPU that torch sees.

    Raises:
        UserError: there is none.
    """
    device = choose_device("auto")
    if device.type == "cpu":
        raise UserError("the part gpu needs a GPU, and torch sees none: install a CUDA build of torch, or leave it out")
    return device


def measure(device: torch.device, size: Size, turns: int) -> Iterator[Ratio | Card]:
    """Rows whose plain side is the CPU, then rows whose both sides are on the device.

    Args:
        device: the GPU.
        size: how much is done.
        turns: of each side; the fastest counts.
    """
    network = load_backbone("edm_qm9_small").network
    yield from molecules(network, device, size, turns)
    yield from crystals(device, size, turns)
    case = Case("on it", copy.deepcopy(network).to(device), size.steps, size.many)
    yield from edm.compare(case, turns, "wall", (None, None))
    if device.type == "cuda":
        yield Card(torch.cuda.get_device_name(device), torch.cuda.max_memory_allocated(device))


def molecules(network: EDMNetwork, device: torch.device, size: Size, turns: int) -> Iterator[Ratio]:
    """Rollout and policy update by the package, on the CPU and on the device."""
    cpu, gpu = (Case("CPU and GPU", copy.deepcopy(network).to(place), size.steps, size.few) for place in (CPU, device))
    first, other = edm.ours_rollout(cpu), edm.ours_rollout(gpu)
    apart = edm.relative(edm.by_id(other, 1).to(CPU), edm.by_id(first, 1))
    name = f"{cpu.name}, {len(cpu.prompts)} molecules, T={size.steps}"
    seconds = interleaved(lambda: edm.ours_rollout(cpu), lambda: edm.ours_rollout(gpu), turns)
    yield Ratio(f"rollout, {name}", *seconds, agreement=f"{apart:.0e} after a step")
    seconds = interleaved(lambda: edm.ours_update(cpu, first), lambda: edm.ours_update(gpu, other), turns)
    yield Ratio(f"policy update, {name}", *seconds)


def crystals(device: torch.device, size: Size, turns: int) -> Iterator[Ratio]:
    """Samples of the shipped crystal model, and CHGNet's energies of those that are sound, on the CPU and the device.

    Raises:
        ValueError: an energy that only one of them has.
    """
    source = CrystalSource.load()
    found = sound(source.samples(size.crystals, seed=0))  # before `sample` moves the model
    plan = SamplePlan(size.crystals, STEPS, seed=0, micro_batch_size=size.crystals)
    seconds = interleaved(
        lambda: sample(source.backbone, plan, CPU), lambda: sample(source.backbone, plan, device), turns
    )
    yield Ratio(f"rollout, CPU and GPU, {size.crystals} crystals, T={STEPS}", *seconds)
    fields = [CHGNetForceField(batch_size=64, device=place.type) for place in (CPU, device)]
    energies = [
        torch.tensor([result.energy / n for result, n in zip(field.evaluate(found), found.sizes.tolist(), strict=True)])
        for field in fields
    ]
    if not torch.equal(energies[0].isnan(), energies[1].isnan()):
        raise ValueError("CPU and GPU do not evaluate the same crystals")
    apart = float((energies[0] - energies[1]).nan_to_num().abs().max())
    seconds = interleaved(lambda: fields[0].evaluate(found), lambda: fields[1].evaluate(found), turns)
    yield Ratio(f"CHGNet, CPU and GPU, {len(found)} crystals", *seconds, agreement=f"{apart:.0e} eV/atom")
