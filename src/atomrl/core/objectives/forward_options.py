"""Options of the forward-process objectives, as `train.nft`, `train.awm` and `train.rejection` hold them."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from atomrl.util.options import BelowOne, Count, Fraction, Options, Positive, Weight, contradiction


class ForwardOptions(Options):
    """What all of them have."""

    times: Count = 8
    """Draws of a time per sample and pass."""
    min_time: Fraction = 0.0
    """A draw's times lie above this (1 is noise, 0 the sample)."""
    max_time: Fraction = 1.0
    """And not above this."""
    clip_advantage: Positive = 5.0
    """c; an advantage A counts as clip(A, -c, c) / c."""
    reference_weight: Weight = 0.0
    """Of the squared distance to the initial model's prediction; 0 leaves it out."""
    residual_limit: Positive | None = None
    """A draw in which the squared error per element of the policy that sampled exceeds this does not teach: that sample
    lies where the policy knows nothing; null: all teach."""
    old_decay_rate: Weight = 0.0
    """Before the rollout of iteration k the old policy, which samples, keeps the share min(rate k, old_decay_max) of
    itself; 0: it is the current policy."""
    old_decay_max: BelowOne = 0.5
    """See old_decay_rate."""

    @model_validator(mode="after")
    def _check_times(self) -> Self:
        """Times in their order."""
        if not self.min_time < self.max_time:
            raise contradiction(
                f"{{at}}min_time={self.min_time}, {{at}}max_time={self.max_time}: must be times between 0 and 1, the "
                "first below the second"
            )
        return self


class NFTOptions(ForwardOptions):
    """Of DiffusionNFT."""

    b: Positive = 1.0
    """How far the two policies that are compared lie from the old one; small: larger steps."""
    self_normalized: bool = True
    """Divide each sample's loss by its mean absolute error."""
    time_weighting: Literal["clean", "noise"] = "clean"
    """Whether the loss compares clean samples, as published, or noises: then all times count alike."""
    max_time_weight: Positive = 3.0
    """Bound of a time's weight under `clean`."""


class AWMOptions(ForwardOptions):
    """Of advantage-weighted matching."""

    clip_range: Positive = 1.0
    """eps of the ratio's clip."""
    old_weight: Weight = 1.0
    """Of the squared distance to the old policy's prediction."""
    time_weighting: Literal["t", "flat"] = "flat"
    """w(t) of the loss in the log-probability."""
    power: Positive = 1.0
    """p of log p = -w/p ((l + 1e-10)^p - 1e-10^p); 1: the plain loss."""


class RejectionOptions(ForwardOptions):
    """Of rejection fine-tuning."""

    kept_fraction: Annotated[Fraction, Field(gt=0.0)] = 0.25
    """Share of each group that teaches: its best samples."""
