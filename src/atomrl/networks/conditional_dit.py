"""The denoiser of crystal latents together with what embeds its conditions: what a conditional pre-training trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from atomrl.networks.conditions import Condition, ConditionModule
from atomrl.networks.dit import DiT, DiTConfig

PREFIX = "condition_module."
"""Of the names of the parameters that embed conditions."""


class ConditionalDiT(DiT):
    """A denoiser whose conditions have no effect at first: the last layer of their embedding begins at 0.

    The parameters of the denoiser have the names that they have without conditions.
    """

    def __init__(self, config: DiTConfig, conditions: Sequence[Condition], drop_prob: float) -> None:
        super().__init__(config)
        self.condition_module = ConditionModule(conditions, config.hidden, drop_prob)
        last = self.condition_module.proj[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def start_from(self, denoiser: Mapping[str, Tensor], conditions: ConditionModule | None) -> None:
        """Take the weights of a denoiser of this shape, and those of its conditions, if it has any."""
        embedding = self.condition_module if conditions is None else conditions
        own = {PREFIX + name: tensor for name, tensor in embedding.state_dict().items()}
        self.load_state_dict({**denoiser, **own})
