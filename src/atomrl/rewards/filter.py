"""The filter of molecules: one sample per SMILES, and penalties for invalid, known and repeated ones.

    invalid    the worst valid value of the channel, over all samples of the iteration, less `invalid_penalty_scale`
    novelty    less `penalty_scale` for an invalid molecule, and for one of the known set
    duplicate  less `duplicate_penalty_scale` (count - 1) where one of a SMILES is kept, else this over count for each

in this order, in every channel. A SMILES is that of the largest fragment, see `chemistry.rdkit`; copies are counted
over the samples of all processes.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Annotated

import torch
from torch import Tensor

from atomrl.chemistry.rdkit import MoleculeChecker
from atomrl.chemistry.training_smiles import TrainingSmiles
from atomrl.core.advantages import Groups
from atomrl.core.batch import ROWS, Batch
from atomrl.core.records import DUPLICATE, RewardTable
from atomrl.core.stages import SampleContext, withhold
from atomrl.rewards.filter_options import FilterOptions
from atomrl.util.closeable import Closing

BEST_BY = "force"
"""The channel by which one of several copies is kept; the first channel where there is none of this name."""


@dataclass(frozen=True)
class Names(Batch):
    """What is compared of B samples.

    Attributes:
        smiles: None for an invalid molecule.
        sample_ids: (B,).
        worth: by which the best copy is chosen, (B,) float64.
    """

    smiles: Annotated[tuple[str | None, ...], ROWS]
    sample_ids: Annotated[Tensor, ROWS]
    worth: Annotated[Tensor, ROWS]

    def __len__(self) -> int:
        return len(self.smiles)


class Filter(Closing):
    """A stage; after gates and totals, before the rule for failures. Close it to end its workers.

    The diagnostics `filter_ratio` and `novelty_penalty_ratio` are the shares of samples that are kept, and that pay for
    being invalid or known.

    Args:
        options: what costs what.
        checker: names the molecules.
        known: the set that novel molecules are not in.
    """

    def __init__(self, options: FilterOptions, checker: MoleculeChecker, known: TrainingSmiles) -> None:
        self.options, self.checker, self.known = options, checker, known

    def __call__(self, table: RewardTable, samples: SampleContext) -> RewardTable:
        """Penalised channels; a copy that is not kept is withheld from the objective."""
        device, active = samples.active.device, samples.active.tolist()
        records = self.checker.check(samples.structures)
        smiles = tuple(record.smiles if usable else None for record, usable in zip(records, active, strict=True))
        valid = torch.tensor([text is not None for text in smiles], device=device)
        table = self._penalised(table, valid, ~valid | self._in_known_set(smiles).to(device), samples)
        mine = Names(smiles, samples.prompts.sample_ids, _worth(table))
        everyone = mine.gather(samples.collective)
        counts = Counter(text for text in everyone.smiles if text is not None)
        others = torch.tensor([0 if text is None else counts[text] - 1 for text in smiles], device=device)
        kept = _best_copies(mine, everyone).to(device) | ~valid
        shared = others if self.options.enable_filtering else others / (others + 1)
        cost = self.options.duplicate_penalty_scale * shared.double()
        channels = {name: values - cost for name, values in table.channels.items()}
        diagnostics = {**table.diagnostics, "filter_ratio": kept.double()}
        table = replace(table, channels=channels, diagnostics=diagnostics)
        return withhold(table, ~kept, DUPLICATE) if self.options.enable_filtering else table

    def close(self) -> None:
        """End the workers."""
        self.checker.close()

    def _in_known_set(self, smiles: tuple[str | None, ...]) -> Tensor:
        """Which of the valid molecules are known, (B,) bool."""
        found = torch.zeros(len(smiles), dtype=torch.bool)
        valid = [row for row, text in enumerate(smiles) if text is not None]
        found[valid] = torch.from_numpy(self.known.contains([text for text in smiles if text is not None]))
        return found

    def _penalised(self, table: RewardTable, valid: Tensor, punished: Tensor, samples: SampleContext) -> RewardTable:
        """The first two penalties."""
        options, channels = self.options, {}
        everyone = Groups.whole(valid, samples.collective)
        for name, values in table.channels.items():
            changed = values
            if options.invalid_penalty_scale:
                worst = everyone.worst(values, valid & samples.active)
                placed = ~valid & samples.active & worst.isfinite()
                changed = torch.where(placed, worst - options.invalid_penalty_scale, changed)
            if options.enable_penalty:
                changed = changed - options.penalty_scale * punished.double()
            channels[name] = changed
        ratio = {"novelty_penalty_ratio": punished.double()} if options.enable_penalty else {}
        return replace(table, channels=channels, diagnostics={**table.diagnostics, **ratio})


def _worth(table: RewardTable) -> Tensor:
    """By which the best copy is chosen, (B,) float64; a failed score is the worst."""
    values = table.channels.get(BEST_BY, next(iter(table.channels.values())))
    return values.double().nan_to_num(nan=-torch.inf)


def _best_copies(mine: Names, everyone: Names) -> Tensor:
    """Which of my samples are the best of their SMILES among everyone's, the first among equals, (B,) bool."""
    best: dict[str, tuple[float, int]] = {}
    rows = zip(everyone.smiles, everyone.worth.tolist(), everyone.sample_ids.tolist(), strict=True)
    for text, worth, sample in rows:
        if text is not None:
            best[text] = max(best.get(text, (-torch.inf, -sample)), (worth, -sample))
    leaders = {-sample for _, sample in best.values()}
    return torch.tensor([sample in leaders for sample in mine.sample_ids.tolist()])
