"""Which device networks run on."""

from __future__ import annotations

import torch

from atomrl.util.errors import UserError


def choose_device(name: str) -> torch.device:
    """`auto` is a GPU where there is one.

    Raises:
        UserError: `cuda` is asked for and torch sees no GPU.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device=cuda, but torch sees no GPU: use device=auto or install a CUDA build of torch")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda")
