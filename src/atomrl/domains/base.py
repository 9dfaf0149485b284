"""What a domain brings: the parts of a run, of an evaluation and of a file that know what the atoms are.

The core, the training and the commands ask the domain and know no other way to a molecule or a crystal.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from torch import Tensor

from atomrl.checkpoints.stored import Stored
from atomrl.config import Config
from atomrl.core.protocols import Model, Monitor, Reward
from atomrl.core.records import Structures
from atomrl.core.stages import Stage
from atomrl.evaluation.panel import Panel
from atomrl.export.exporter import Exporter, Picture
from atomrl.workers.executor import Workers

M = TypeVar("M", bound=Model)
C = TypeVar("C", bound=Config)


class Domain(ABC, Generic[M, C]):
    """One domain: its models M and its configuration C.

    Attributes:
        name: as in `Config.domain`.
        noun: of samples, for messages.
        formats: endings of the files that `exporter` writes, the usual one first.
        time_step: default T of a walk.
        shown: main numbers of the log, as far as they are there: beside the progress bar of a training, or in the
            lines that stand for it.
        demo: configuration whose reward chooses samples where the user names none.
        accepted: what `accepts` lets pass, in words.
        card_entry: what the card of a model of this domain has, and no other's.
    """

    name: str
    noun: str
    formats: tuple[str, ...]
    time_step: int
    demo: str
    accepted: str
    card_entry: str
    shown: tuple[str, ...]

    @abstractmethod
    def load(self, stored: Stored, config: C) -> M:
        """The model, which samples as the configuration says.

        Raises:
            UserError: it is none of this domain, or its tensors do not fit.
        """

    def beside_a_run(self, config: C, stored: Stored) -> C:
        """The configuration of a run for another model than its own: without what means nothing to that one."""
        return config

    def trained(self, config: C, model: M) -> M:
        """The model that a run trains: this one, with what the configuration adds to it, in place.

        Raises:
            UserError: what it adds does not fit the model.
        """
        return model

    @abstractmethod
    def check_code(self, config: C) -> None:
        """Import the code that a configuration's reward and judges name, and compare arguments with its signatures.

        Raises:
            UserError: code that is not there, that cannot be imported, or that does not take its arguments.
        """

    @abstractmethod
    def save(self, folder: Path, model: M, card: Mapping[str, Any]) -> None:
        """Write the model as a folder that `load` reads; `card` holds what else should be known about the weights.

        Raises:
            UserError: the folder cannot be written.
        """

    @abstractmethod
    def adopt(self, model: Model, config: C) -> M:
        """A model that is loaded already, or that a program gave, so that it samples as the configuration says.

        Raises:
            UserError: it is none of this domain.
        """

    @abstractmethod
    def reward(self, config: C, model: M, workers: Workers | None = None) -> Reward:
        """The reward that a configuration names; its workers start at the first scoring.

        Args:
            config: of the run.
            model: that training starts from.
            workers: of the run; if None local ones of its own, as many as the configuration says.
        """

    def may_give_forces(self, reward: Reward) -> bool:
        """Whether the tables of a reward, made by `reward`, may have forces; one of the user's alone knows."""
        return False

    @abstractmethod
    def stages(self, config: C, reward: Reward) -> Sequence[Stage]:
        """What happens between that reward's scores and the rule for failures."""

    @abstractmethod
    def filters(self, config: C, workers: Workers | None = None) -> Sequence[Stage]:
        """What finished samples pay and are left out for, after those stages; workers as in `reward`.

        Raises:
            UserError: what a filter compares with cannot be read.
        """

    @abstractmethod
    def channel_weights(self, config: C, reward: Reward) -> Mapping[str, float]:
        """Weight of each of the reward's channels in the objective."""

    @abstractmethod
    def monitor(self, config: C, model: M, workers: Workers | None = None) -> Monitor | None:
        """What looks at each iteration's samples for the log; arguments as of `reward`."""

    @abstractmethod
    def panel(self, config: C, model: M, workers: Workers | None = None) -> Panel:
        """The judges of an evaluation.

        Args:
            config: of the run whose result is judged, or the documented defaults.
            model: that training starts from.
            workers: as in `reward`.
        """

    @abstractmethod
    def rewarded(self, config: C) -> set[str]:
        """Metrics that a training with this configuration is paid for."""

    @abstractmethod
    def accepts(self, structures: Structures) -> Tensor:
        """Which samples a check without any scoring lets pass, (B,) bool."""

    @abstractmethod
    def exporter(self, ending: str, workers: Workers | None = None) -> Exporter:
        """Who writes samples as a file of this ending, one of `formats`.

        Args:
            ending: of the file.
            workers: of the run; if None local ones of its own.
        """

    @abstractmethod
    def picture(self, structures: Structures, captions: Sequence[str]) -> Picture:
        """A few samples side by side, each with a caption below it.

        Raises:
            UserError: what draws them is not installed.
        """
