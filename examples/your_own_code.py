"""Code of your own for a training of molecules: a reward, a force field of ASE, an objective.

atomrl train --config-dir examples --config-name your_own_code
atomrl check-reward examples/your_own_code.py:oxygen_share --molecules
atomrl check-force-field examples/your_own_code.py:Springs
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from torch import Tensor

from atomrl.core.advantages import Advantages, Groups
from atomrl.core.normalize import group_advantages
from atomrl.core.objectives.base import StepLoss
from atomrl.core.objectives.fed_grpo import FedGRPOConfig
from atomrl.core.objectives.likelihood import LikelihoodObjective, StepTerms, scored_channels
from atomrl.core.protocols import Collective
from atomrl.core.records import RewardTable


def oxygen_share(structures: list[Atoms]) -> np.ndarray:
    """Share of oxygen among each molecule's atoms, (B,)."""
    return np.array([(atoms.numbers == 8).mean() for atoms in structures])


class Springs(Calculator):
    """A force field without chemistry: every pair of atoms is a spring of one length."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012 - as ASE declares it

    def __init__(self, length: float = 2.0, stiffness: float = 0.5) -> None:
        super().__init__()
        self.length, self.stiffness = length, stiffness

    def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes) -> None:
        """Energy, eV, and forces, eV/Å."""
        super().calculate(atoms, properties, system_changes)
        between = self.atoms.positions[:, None] - self.atoms.positions[None]
        distances = np.linalg.norm(between, axis=2) + np.eye(len(self.atoms)) * self.length
        stretch = distances - self.length
        forces = -(self.stiffness * stretch / distances)[..., None] * between
        self.results = {"energy": self.stiffness * (stretch**2).sum() / 4, "forces": forces.sum(1)}


class Reinforce(LikelihoodObjective[FedGRPOConfig]):
    """L = -A rho on the weighted sum of all channels, each normalised in its group."""

    def __init__(self, channel_weights: Mapping[str, float], kl_penalty_weight: float = 0.0) -> None:
        super().__init__(FedGRPOConfig(channel_weights=channel_weights, kl_penalty_weight=kl_penalty_weight))

    def advantages(
        self, table: RewardTable, group_ids: Tensor, active: Tensor, collective: Collective | None = None
    ) -> Advantages:
        """Weighted sum, (B,)."""
        groups, weights = Groups.of(group_ids), self.config.channel_weights
        shares = {
            name: weights[name] * group_advantages(values, known, groups)
            for name, (values, known) in scored_channels(table, weights, active).items()
        }
        return Advantages(torch.stack(list(shares.values())).sum(0), shares)

    def step_loss(self, terms: StepTerms) -> StepLoss:
        """Loss of one transition, (B,)."""
        ratio = torch.exp(terms.log_prob - terms.old_log_prob)
        return self.finished(-terms.advantages.to(ratio.dtype) * ratio, terms, {"ratio": ratio.detach()})
