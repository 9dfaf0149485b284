"""`atomrl.resume`: a run goes on as its own config.yaml says; and what `atomrl resume` calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from atomrl.checkpoints.folder import CONFIG
from atomrl.checkpoints.named import EVALUATION, LATEST
from atomrl.checkpoints.stored import Stored, read_stored
from atomrl.config import Config, with_overrides
from atomrl.config.naming import listed_words
from atomrl.config.switches import require_switched_on
from atomrl.domains import model_of
from atomrl.evaluation.evaluate import JSON, TABLES, drawn_by
from atomrl.evaluation.table_file import read_table
from atomrl.library.given import Given
from atomrl.library.run import Run
from atomrl.training.changed_settings import require_lengthening
from atomrl.training.crew import Crew
from atomrl.training.run import train_and_evaluate
from atomrl.training.run_directory import described_run, find_run, how_to_resume, iterations_done
from atomrl.util.errors import UserError
from atomrl.util.glibc_malloc import freed_memory_kept
from atomrl.util.processes import Launch, own_launch

if TYPE_CHECKING:
    from atomrl.library.given import ForceFieldLike, ObjectiveLike, PolicyLike, RewardLike


@freed_memory_kept()
def resume(
    run: str | Path | Run,
    overrides: Sequence[str] = (),
    *,
    reward: RewardLike | None = None,
    policy: PolicyLike | None = None,
    objective: ObjectiveLike | None = None,
    force_field: ForceFieldLike | None = None,
    trust_code: bool = False,
) -> Run:
    """Continue a run as its own config.yaml says; it ends as one that was never stopped.

    Examples:
        >>> small = ["dataloader.epoches=1", "dataloader.sample_group_size=2", "dataloader.each_prompt_sample=4"]
        >>> run = atomrl.train("demo", [*small, "model.time_step=10", "evaluation.samples=0"], reward="dummy")
        >>> run = atomrl.resume(run, ["dataloader.epoches=2"])
        >>> run.iterations
        2

    Args:
        run: the run directory, its latest checkpoint, or a `Run`.
        overrides: `key=value` that say how long and where, e.g. `dataloader.epoches=200`.
        reward: what the run was given, once more, where no file holds it; of a `Run` it is known, and so are the next.
        policy: likewise.
        objective: likewise.
        force_field: likewise.
        trust_code: run code that the run's config.yaml names; what is given here is trusted.

    Returns:
        The run. One that has nothing left to do says so, and stays as it is.

    Raises:
        UserError: no run there; code that is not trusted; objects that are not given, or others than the run's; words
            that would make another run of it; or as `train`.
    """
    overrides = listed_words(overrides)
    given = Given.of(reward=reward, policy=policy, objective=objective, force_field=force_field)
    if isinstance(run, Run):
        given, trust_code = given if given.values else run.given, trust_code or run.trust_code
        run = run.folder
    words = [repr(str(run)), *([repr(overrides)] if overrides else [])]
    command = f"atomrl.resume({', '.join([*words, *(f'{name}={said}' for name, said in given.said.items())])})"
    with own_launch() as launch:
        place = Continuation(Path(run), overrides, trust_code, "trust_code=True", given).train(command, launch)
    return Run.trained(place, given)


@dataclass(frozen=True)
class Continuation:
    """What says how a run goes on.

    Attributes:
        where: the run directory, or its latest checkpoint.
        overrides: `key=value` each.
        trust_code: code that its config.yaml names may run.
        remedy: how to say so, for the error.
        given: objects of a program.
    """

    where: Path
    overrides: Sequence[str]
    trust_code: bool
    remedy: str
    given: Given = field(default_factory=Given)

    def train(self, command: str, launch: Launch) -> Path:
        """Continue; a run that has nothing left to do is named as finished. Returns the run directory.

        Args:
            command: what a reader types to get the same table.
            launch: which process this is.

        Raises:
            UserError: as `resume`.
        """
        with Crew(launch) as crew, self.given.handed_over():  # around all, so that a mistake is told once
            require_lengthening(self.overrides)
            place = _run(self.where)
            described = described_run(place / CONFIG, self.trust_code, self.remedy)
            self.given.require_same(place, described)
            config = with_overrides(described, self.overrides).changed(save_path=str(place), resume=True)
            require_switched_on(config, self.overrides)
            again = any(word.lstrip("+~").startswith("evaluation") for word in self.overrides)
            if not again and (said := _finished(place, config)):
                if crew.launch.rank == 0:
                    print(said)
                return place
            return train_and_evaluate(config, place.name, command, crew)


def _run(where: Path) -> Path:
    """The run directory that is named.

    Raises:
        UserError: there is none, or another checkpoint than the latest is named, which no run can go on from.
    """
    checkpoint, described = find_run(where)
    if checkpoint.name != LATEST:
        raise UserError(
            f"{where}: a run continues from its {LATEST}: give {described.parent}; for a new run from this model: "
            f"atomrl train model.backbone={where}"
        )
    return described.parent


def _finished(place: Path, config: Config) -> str | None:
    """What to say of a run that is done and judged; None: there is something left to do."""
    stored = read_stored(str(place / LATEST))
    done = iterations_done(stored, place / LATEST)
    if done != config.dataloader.epoches or (config.evaluation.samples and not _is_judged(place, config, stored)):
        return None
    longer = how_to_resume(place, config, f"dataloader.epoches={2 * done}")
    return f"{place} has completed its {done} iterations: nothing is left to do; for more: {longer}"


def _is_judged(place: Path, config: Config, stored: Stored) -> bool:
    """Whether the table of a run is of these weights: an evaluation after more iterations may have been stopped.

    One that does not say which weights it judged, as in earlier versions, counts as theirs.
    """
    folder = place / EVALUATION
    if not (folder / TABLES).is_file():
        return False
    known = [column.model for column in read_table(folder / JSON).columns.values() if column.model is not None]
    return not known or drawn_by(model_of(stored, config)).weights in [model.weights for model in known]
