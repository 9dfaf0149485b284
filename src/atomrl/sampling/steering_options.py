"""`--steer` and what goes with it, for `atomrl sample` and `atomrl evaluate`."""

from __future__ import annotations

import math
from dataclasses import dataclass

from atomrl.core.steering import SteeringConfig
from atomrl.util.errors import UserError
from atomrl.util.growing_file import Settings

USUAL_TEMPERATURE = SteeringConfig().temperature


@dataclass(frozen=True)
class SteeringOptions:
    """How samples are steered.

    Attributes:
        particles: of each sample; 0: none is steered.
        temperature: of `SteeringConfig`; None: its own.
        places: likewise.

    Raises:
        UserError: one of the latter means nothing, or says how to do what is not asked for.
    """

    particles: int = 0
    temperature: float | None = None
    places: int | None = None

    def __post_init__(self) -> None:
        given = {"--steer-temperature": self.temperature, "--steer-places": self.places}
        for name, value in given.items():
            if value is not None and not self.particles:
                raise UserError(f"{name} {value:g} says how particles are resampled: give --steer too")
        if self.temperature is not None and not 0 <= self.temperature < math.inf:
            raise UserError(f"--steer-temperature {self.temperature:g}: must be 0 or more, and finite")
        if self.places is not None and self.places < 1:
            raise UserError(f"--steer-places {self.places}: must be at least 1; --best-of resamples at no place")

    def config(self, time_step: int, at_once: int) -> SteeringConfig:
        """How particles walk.

        Args:
            time_step: T of the walk.
            at_once: particles that the sampler sees at once, unless one sample has more.

        Raises:
            UserError: there are more places than steps.
        """
        if self.places is not None and self.places > time_step:
            raise UserError(
                f"--steer-places {self.places}: must be at most {time_step}, the steps of the walk (--time-step)"
            )
        temperature = USUAL_TEMPERATURE if self.temperature is None else self.temperature
        return SteeringConfig(time_step, max(self.particles, at_once), self.places, temperature)


def resampling(config: SteeringConfig) -> Settings:
    """What an unfinished file says of it."""
    return {"--steer-temperature": config.temperature, "--steer-places": len(config.at())}
