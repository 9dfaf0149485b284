"""A training from Python's side: where it is, its numbers, its models, its table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atomrl.checkpoints.folder import CONFIG
from atomrl.checkpoints.named import BEST, EVALUATION, LATEST, METRICS
from atomrl.checkpoints.stored import read_stored
from atomrl.config import Config, read_config
from atomrl.evaluation.evaluate import JSON, TABLES, Report
from atomrl.library.given import Given
from atomrl.training.run_directory import iterations_done
from atomrl.util.errors import UserError
from atomrl.util.files import read_json_lines

if TYPE_CHECKING:
    from ase import Atoms

    from atomrl.core.protocols import DiffusionPolicy, Model
    from atomrl.library.given import ForceFieldLike, ObjectiveLike, PolicyLike, RewardLike

Row = dict[str, float | None]
"""Numbers of an iteration, by name; None for one that is not finite."""


class Run:
    """A training: done, stopped or going on. It reads the run directory when it is asked.

    Examples:
        >>> small = ["dataloader.epoches=2", "dataloader.sample_group_size=2", "dataloader.each_prompt_sample=4"]
        >>> folder = atomrl.train("demo", [*small, "model.time_step=10", "evaluation.samples=0"], reward="dummy").folder
        >>> run = atomrl.Run(folder)
        >>> [row["iteration"] for row in run.log]
        [0, 1]

    Args:
        folder: the run directory.
        reward: what `atomrl.train` was given, where no file holds it: needed to evaluate or continue the run.
        policy: likewise; needed to load the policy, too.
        objective: likewise.
        force_field: likewise.
        trust_code: the code that its config.yaml names may run.

    Raises:
        UserError: there is no run, or something of another type is given.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        reward: RewardLike | None = None,
        policy: PolicyLike | None = None,
        objective: ObjectiveLike | None = None,
        force_field: ForceFieldLike | None = None,
        trust_code: bool = False,
    ) -> None:
        self._folder, self._place, self.trust_code = Path(folder), Path(folder).absolute(), trust_code
        if not (self.folder / CONFIG).is_file():
            raise UserError(f"no run in {folder}: it has no {CONFIG}; a model without its run is for atomrl.load")
        self.given = Given.of(reward=reward, policy=policy, objective=objective, force_field=force_field)

    @classmethod
    def trained(cls, folder: Path, given: Given) -> Run:
        """The run of a call that gave this; the code that it named has run already."""
        run = cls(folder, trust_code=True)
        run.given = given
        return run

    @property
    def folder(self) -> Path:
        """The run directory: as it was given, or its whole path once the program is in another folder than then."""
        return self._folder if self._folder.absolute() == self._place else self._place

    @property
    def config(self) -> Config:
        """Its whole configuration.

        Raises:
            UserError: config.yaml cannot be read.
        """
        return read_config(self.folder / CONFIG)

    @property
    def log(self) -> list[Row]:
        """A row for each iteration, in order; `pandas.DataFrame(run.log)` is the log as a table."""
        path = self.folder / METRICS
        return read_json_lines(path) if path.is_file() else []

    @property
    def columns(self) -> dict[str, list[float | None]]:
        """The same by name: a number of each iteration; None where there is none."""
        rows = self.log
        return {name: [row.get(name) for row in rows] for name in dict.fromkeys(name for row in rows for name in row)}

    @property
    def iterations(self) -> int:
        """How many are done."""
        return len(self.log)

    @property
    def best_iteration(self) -> int | None:
        """The iteration, from 0, that `checkpoint_best.pth` holds; None: no iteration had the number that says it.

        Raises:
            UserError: the checkpoint is damaged.
        """
        path = self.folder / BEST
        return iterations_done(read_stored(str(path)), path) - 1 if path.is_file() else None

    def model(self, best: bool = False) -> Model:
        """The trained model, with its averaged weights.

        Args:
            best: of the best iteration, not the last.

        Raises:
            UserError: there is no such checkpoint, or the policy was an object that is not given.
        """
        from atomrl.library.loading import from_stored  # noqa: PLC0415 - it knows runs

        with self.given.handed_over():
            return from_stored(read_stored(str(self.folder / (BEST if best else LATEST)))).model

    @property
    def policy(self) -> DiffusionPolicy:
        """The trained policy, a torch module on the CPU; see `model`."""
        return self.model().policy()

    @property
    def evaluation(self) -> dict[str, Any] | None:
        """The table before and after, as `evaluation/evaluation.json` has it; None: there is none."""
        path = self.folder / EVALUATION / JSON
        if not (self.folder / EVALUATION / TABLES).is_file():
            return None
        table: dict[str, Any] = json.loads(path.read_text())
        return table

    def sample(self, count: int = 10, **options: Any) -> list[Atoms]:
        """Draw samples of the trained model; options as of `atomrl.sample`."""
        from atomrl.library.sampling import sample  # noqa: PLC0415 - it knows runs

        return sample(self, count, **options)

    def evaluate(self, samples: int, **options: Any) -> Report:
        """Judge fresh samples of the trained model and of the one it started from; as `atomrl.evaluate`."""
        from atomrl.library.evaluating import evaluate  # noqa: PLC0415 - it knows runs

        return evaluate(self, samples=samples, **options)

    def resume(self, overrides: Sequence[str] = ()) -> Run:
        """Go on with it, see `atomrl.resume`."""
        from atomrl.library.resuming import resume  # noqa: PLC0415 - it knows runs

        return resume(self, overrides)

    def __repr__(self) -> str:
        """One line."""
        return f"Run({str(self.folder)!r}): {', '.join(self._said())}"

    def _repr_markdown_(self) -> str:
        """For a notebook: the same, and the table if there is one."""
        table = self.folder / EVALUATION / TABLES
        lines = [f"**{self.folder}**: {', '.join(self._said())}"]
        return "\n\n".join([*lines, *([table.read_text()] if table.is_file() else [])])

    def _said(self) -> list[str]:
        """What there is to say."""
        config, rows = self.config, self.log
        said = [config.domain, f"{len(rows)} of {config.dataloader.epoches} iterations"]
        if rows and (reward := rows[-1].get("reward")) is not None:
            said.append(f"reward {reward:.4g} in the last")
        if (best := self.best_iteration) is not None:
            said.append(f"best by {config.best_checkpoint_metric}: iteration {best}")
        return [*said, "evaluated" if self.evaluation is not None else "not evaluated"]
