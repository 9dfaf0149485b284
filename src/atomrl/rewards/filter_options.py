"""Options of the filter of molecules, as `filters` holds them, apart from the code that needs torch."""

from __future__ import annotations

from atomrl.util.options import Options, Weight


class FilterOptions(Options):
    """What RDKit's names cost a molecule, in every channel that learns."""

    enable_filtering: bool = False
    """Of the samples of one SMILES only the best teaches, that of the highest force reward; invalid ones all do."""
    enable_penalty: bool = False
    """Whether invalid and known molecules pay `penalty_scale`."""
    penalty_scale: Weight = 0.5
    """What an invalid molecule pays, and one that is in the known set."""
    invalid_penalty_scale: Weight = 0.0
    """An invalid molecule is placed this far below the worst valid one of the iteration; 0: it is not moved."""
    duplicate_penalty_scale: Weight = 0.0
    """What a molecule pays for each further sample of its SMILES in the iteration: the one that is kept all of it, else
    each copy its share; 0: nothing."""

    @property
    def used(self) -> bool:
        """Whether any of it does something."""
        penalty = self.enable_penalty and self.penalty_scale > 0
        return self.enable_filtering or penalty or self.invalid_penalty_scale > 0 or self.duplicate_penalty_scale > 0
