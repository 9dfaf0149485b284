"""Kinds of objectives, and which of them read a key of `train`."""

from __future__ import annotations

from typing import Any

from atomrl.util.options import Options

LIKELIHOOD, FORWARD = ("fed_grpo", "grpo"), ("nft", "awm", "rejection")
"""Objectives over log-probabilities of the walk, and over denoising losses."""

READ_BY = {
    "clip_range": LIKELIHOOD,
    "kl_penalty_weight": LIKELIHOOD,
    "step_weighting": LIKELIHOOD,
    "train_steps": LIKELIHOOD,
    "train_min_time": LIKELIHOOD,
    "train_max_time": LIKELIHOOD,
    "clip_advantage_value": ("fed_grpo",),
    "group_reward_norm": ("grpo", *FORWARD),
    "reward_normalize_fn": ("grpo", *FORWARD),
    "reward_eps": ("grpo", *FORWARD),
    "log_prob_reduction": LIKELIHOOD,
    "force_alignment_enabled": ("fed_grpo",),
    "force_alignment_weight": ("fed_grpo",),
    "force_alignment_min_force": ("fed_grpo",),
    "force_alignment_min_delta": ("fed_grpo",),
    "kl_weight": ("grpo",),
    "entropy_weight": ("grpo",),
    "advantages": FORWARD,
    "nft": ("nft",),
    "awm": ("awm",),
    "rejection": ("rejection",),
}
"""Which objectives read a key of `train` that not all of them do; some keys are of one domain alone."""

UNREAD_INSIDE = {"rejection": ("clip_advantage",)}
"""What an objective does not read of its own section, which has the options of all of its kind."""

OF_SUMS = ("group_reward_norm", "reward_normalize_fn", "reward_eps")
"""Those among them that no objective reads that normalises each channel by itself."""

OF_THE_GUARD = ("log_prob_reduction",)
"""Those that every objective's run reads where `max_behaviour_kl` is set."""


def unread_keys(train: Options, objective: str, by_channel: bool, guarded: bool) -> dict[str, Any]:
    """{key: value} of what an objective does not read although it is not at its default; of a section, of each key.

    Args:
        train: options of the section `train`.
        objective: that was chosen there.
        by_channel: whether it normalises each channel by itself.
        guarded: whether `max_behaviour_kl` is set.
    """
    found: dict[str, Any] = {}
    for name in [name for name in READ_BY if name in type(train).model_fields]:
        value, default = getattr(train, name), type(train).model_fields[name].default
        read = objective in READ_BY[name] and not (by_channel and name in OF_SUMS)
        read = read or (name in OF_THE_GUARD and guarded)
        if value == default:
            continue
        if isinstance(value, Options):
            unread = UNREAD_INSIDE.get(name, ()) if read else tuple(type(value).model_fields)
            differing = [key for key in unread if getattr(value, key) != getattr(default, key)]
            found |= {f"{name}.{key}": getattr(value, key) for key in differing}
        elif not read:
            found[name] = value
    return found
