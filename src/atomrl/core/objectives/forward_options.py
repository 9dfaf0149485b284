"""Options of the forward-process objectives, as `train.nft`, `train.awm` and `train.rejection` hold them."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from atomrl.util.options import BelowOne, Count, Fraction, Options, Positive, Weight, contradiction


class ForwardOptions(Options):
    """What all of them have."""

    times: Count = 8
    """Draws of a time for each sample in a pass over the samples; the sample is noised again to that time."""
    min_time: Fraction = 0.0
    """The times that are drawn lie above this (1 is noise, 0 the sample)."""
    max_time: Fraction = 1.0
    """The times that are drawn do not exceed this (1 is noise, 0 the sample)."""
    clip_advantage: Positive = 5.0
    """Bound c of an advantage A, which counts as clip(A, -c, c) / c."""
    reference_weight: Weight = 0.0
    """Weight of the squared distance to the initial model's prediction, which keeps the policy near that model; 0
    leaves it out."""
    residual_limit: Positive | None = None
    """In a draw of a time, a sample's advantage counts as 0 if the squared error per element of the policy that sampled
    exceeds this: the sample lies where the policy knows nothing; null: no limit."""
    residual_bound: Positive | None = None
    """In a draw of a time, a sample counts for this over the squared error per element of the policy that sampled, if
    the error is larger, so that few samples do not own the gradient; a prediction of no noise at all has an error of 1;
    null: every sample counts for 1."""
    old_decay_rate: Weight = 0.0
    """Before the rollout of iteration k the old policy, which samples, keeps the share min(this times k, old_decay_max)
    of itself and takes the rest from the current policy; 0: it is the current policy."""
    old_decay_max: BelowOne = 0.5
    """Upper bound of the share that the old policy, which samples, keeps of itself before each rollout."""

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
    """How far the two policies that the loss compares lie from the old one; a small value makes larger steps."""
    self_normalized: bool = True
    """Whether to divide each sample's loss by its mean absolute error."""
    time_weighting: Literal["clean", "noise"] = "clean"
    """What the loss compares: `clean`, clean samples, as published; `noise`, noises, so that all times count alike."""
    max_time_weight: Positive = 3.0
    """Bound of a time's weight in the loss, with `time_weighting=clean`."""


class AWMOptions(ForwardOptions):
    """Of advantage-weighted matching."""

    clip_range: Positive = 1.0
    """The ratio of new to old probability is clipped to 1 ± this."""
    old_weight: Weight = 1.0
    """Weight of the squared distance to the old policy's prediction, which keeps the policy near it; 0 leaves it
    out."""
    time_weighting: Literal["t", "flat"] = "flat"
    """Weight w(t) of the denoising loss l in the log-probability: `t`, the time itself, or `flat`, 1."""
    power: Positive = 1.0
    """p of log p = -w/p ((l + 1e-10)^p - 1e-10^p), with the denoising loss l and its weight w; 1: -w l, the plain
    loss."""


class RejectionOptions(ForwardOptions):
    """Of rejection fine-tuning."""

    clip_advantage: Positive = 5.0
    """Changes nothing: a sample is kept or not, whatever the size of its advantage."""
    kept_fraction: Annotated[Fraction, Field(gt=0.0)] = 0.25
    """Share of each group that is trained on: its best samples."""
