"""Options of the filter of molecules, as `filters` holds them, apart from the code that needs torch."""

from __future__ import annotations

from atomrl.util.options import Options, Weight


class FilterOptions(Options):
    """What RDKit's names cost a molecule, in every channel that learns."""

    enable_filtering: bool = False
    """Whether only the best sample of each SMILES, by the force reward, is trained on; invalid ones all are."""
    enable_penalty: bool = False
    """Whether invalid and known molecules get the penalty `penalty_scale`."""
    penalty_scale: Weight = 0.5
    """Penalty for an invalid molecule, and for one of the known set (dataloader.smiles_path)."""
    invalid_penalty_scale: Weight = 0.0
    """An invalid molecule is placed this far below the worst valid one of the iteration; 0: it is not moved."""
    duplicate_penalty_scale: Weight = 0.0
    """Penalty for each further sample of the same SMILES in the iteration. The sample that is kept pays it; without
    `enable_filtering` all copies pay equal shares; 0: none."""

    @property
    def used(self) -> bool:
        """Whether any of it does something."""
        penalty = self.enable_penalty and self.penalty_scale > 0
        return self.enable_filtering or penalty or self.invalid_penalty_scale > 0 or self.duplicate_penalty_scale > 0
