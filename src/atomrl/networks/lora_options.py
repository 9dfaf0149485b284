"""Options of low-rank adapters (LoRA, Hu et al. 2021); `lora.py` makes them."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from atomrl.util.options import CountOrNone, Options, PositiveFinite, contradiction

TARGETS = ("attn", "fc1", "fc2")
"""Layers that have adapters where nothing else is said: attention and perceptron of each block."""


class LoraOptions(Options):
    """Low-rank adapters beside layers of the denoiser, whose own weights then stay as they are."""

    rank: CountOrNone = 0
    """Rank of the adapters (LoRA) that are trained in place of the denoiser's weights (needs `pip install
    'atomrl[lora]'`); 0: no adapters, all weights are trained."""
    alpha: PositiveFinite | None = None
    """An adapter's output is multiplied by alpha / rank; null: alpha is twice the rank."""
    target_modules: tuple[str, ...] = TARGETS
    """Layers with adapters, given by the ends of their names; `attn` is the whole attention."""

    @model_validator(mode="after")
    def _check_used(self) -> Self:
        """Raise UserError for what says something about adapters that there are not, and adapters of no layer."""
        if not self.rank and (self.alpha is not None or self.target_modules != TARGETS):
            raise contradiction(
                "{at}alpha and {at}target_modules are about adapters, and {at}rank=0 means none: give a rank, or leave "
                "them out"
            )
        if not self.target_modules:
            raise contradiction("{at}target_modules=[] leaves nothing to train: name a layer, such as attn")
        return self

    @property
    def scale(self) -> float:
        """What the product of an adapter's two matrices is multiplied by."""
        return 2.0 if self.alpha is None else self.alpha / self.rank
