"""Several processes train one model only if they begin with the same weights."""

from __future__ import annotations

import torch
from torch import nn

from atomrl.core.protocols import Collective
from atomrl.util.errors import UserError


def require_same_weights(module: nn.Module, collective: Collective) -> None:
    """Compare the weights of all ranks, by the sum of their bytes.

    Raises:
        UserError: on every rank, if one has others.
    """
    if collective.size == 1:
        return
    total = sum(int(p.detach().cpu().flatten().view(torch.uint8).long().sum()) for p in module.parameters())
    if len(set(collective.gather(torch.tensor([total])).tolist())) > 1:
        raise UserError(
            "the processes start from different weights: model.backbone, or the checkpoint that the run continues "
            "from, must be the same file on all hosts"
        )
