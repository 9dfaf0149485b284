"""Weights of a run that trained adapters, as any other model's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from atomrl.checkpoints.folder import config_from
from atomrl.networks.lora import merged
from atomrl.networks.lora_options import LoraOptions

LORA = "lora"
"""Entry of a card: the adapters that a run trained."""


def plain_weights(weights: Mapping[str, Tensor], card: Mapping[str, Any], origin: str) -> dict[str, Tensor]:
    """The trained module's weights, with the adapters merged if there are some.

    Args:
        weights: by their names in the module.
        card: of the run's checkpoint.
        origin: of both, for errors.

    Raises:
        UserError: the card's entry is damaged, or an adapter does not fit its layer.
    """
    if LORA not in card:
        return dict(weights)
    return merged(weights, config_from(LoraOptions, card[LORA], origin).scale, origin)
