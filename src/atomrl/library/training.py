"""`atomrl.train`: a training in one call, and what `atomrl train` calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from atomrl.config import Config, load_config, require_read, with_further, with_overrides
from atomrl.config.naming import DEFAULT, listed_words, named_yaml
from atomrl.library.given import Given
from atomrl.library.run import Run
from atomrl.training.crew import Crew
from atomrl.training.run import train_and_evaluate
from atomrl.training.run_directory import refuse_forgotten
from atomrl.util.errors import UserError
from atomrl.util.glibc_malloc import freed_memory_kept
from atomrl.util.processes import Launch, own_launch

if TYPE_CHECKING:
    from atomrl.library.given import ForceFieldLike, ObjectiveLike, PolicyLike, RewardLike


@dataclass(frozen=True)
class Words:
    """What says a training: a YAML by its name and overrides, as on the command line.

    Attributes:
        name: of the YAML; None: the default's, or what `experiment=` among the overrides names.
        overrides: `key=value` each.
        folder: of the user's YAMLs; None: the package's.
    """

    name: str | None = None
    overrides: Sequence[str] = ()
    folder: Path | None = None


@freed_memory_kept()
def train(
    config: str | Config = DEFAULT,
    overrides: Sequence[str] = (),
    *,
    reward: RewardLike | None = None,
    policy: PolicyLike | None = None,
    objective: ObjectiveLike | None = None,
    force_field: ForceFieldLike | None = None,
    config_dir: str | Path | None = None,
) -> Run:
    """Train: log, checkpoints and the table before and after included, as `atomrl train` does.

    Ctrl-C saves what is done and raises KeyboardInterrupt; `atomrl.resume` goes on. What is given here takes the place
    of what the configuration says. A function or class that is imported from a module of its own is recorded by name in
    config.yaml, and every command takes the run. Anything else (a notebook's function, an object) is recorded as a
    Python object: to evaluate or continue the run, give it again.

    Examples:
        >>> def oxygen_share(molecules: "list[Atoms]") -> list[float]:
        ...     return [float((molecule.numbers == 8).mean()) for molecule in molecules]
        >>> small = ["dataloader.epoches=2", "dataloader.sample_group_size=2", "dataloader.each_prompt_sample=4"]
        >>> run = atomrl.train("demo", [*small, "model.time_step=20", "evaluation.samples=0"], reward=oxygen_share)
        >>> len(run.columns["raw_oxygen_share"])
        2

    Args:
        config: name of a YAML of the package (`atomrl list configurations`) or of `config_dir`; or a configuration.
        overrides: `key=value`, as of `atomrl train`: `experiment=prototypes/rl_dng` too.
        reward: a function of structures -> a number each, larger is better, which gets what the annotation of its first
            parameter asks for (`list[Atoms]`, `list[Mol]`, `Structures`); a component; a `Reward` with `weights`, which
            stands alone; a name, as `reward.type` or `_target_` takes it; a mapping with `_target_`; or several: a
            list, or {component: weight}.
        policy: what to train: a name or path, as `model.backbone`; a run; a model of `atomrl.load`; or an object with
            the methods of `DiffusionPolicy` and `sizes`, {atoms: how often}. An object is copied, and stays as it is.
        objective: a name, as `train.objective`; a class, which gets `channel_weights` if it has that parameter; or an
            object.
        force_field: of the reward: a name; a calculator of ASE, or what makes one, which then runs in the workers; or a
            `ForceField`.
        config_dir: folder of YAMLs of yours.

    Returns:
        The run; the run directory is `save_path`, or a fresh one under outputs/.

    Raises:
        UserError: what is given or set cannot be; one line.
        NonFiniteLossError: the loss stopped being finite; a reproducer was saved.
    """
    overrides = listed_words(overrides)
    _require_configuration(config)
    given = Given.of(reward=reward, policy=policy, objective=objective, force_field=force_field)
    words = [repr(config) if isinstance(config, str) else "load_config(...)", repr(overrides)]
    words += [] if config_dir is None else [f"config_dir={str(config_dir)!r}"]
    command = f"atomrl.train({', '.join([*words, *(f'{name}={said}' for name, said in given.said.items())])})"
    folder = None if config_dir is None else Path(config_dir)
    with own_launch() as launch:
        if isinstance(config, str):
            place = train_by_words(Words(config, overrides, folder), command, launch, given)
        else:
            with Crew(launch) as crew, given.handed_over():
                whole = with_further(with_overrides(config, overrides), given.put_into, overrides)
                require_read(whole, overrides)
                given.require_read(whole)
                place = train_and_evaluate(whole, whole.domain, command, crew)
    return Run.trained(place, given)


def _require_configuration(config: object) -> None:
    """Raise UserError for what is neither a YAML's name nor a configuration."""
    if not isinstance(config, str | Config):
        raise UserError(
            "config must be the name of a YAML (config_dir=... says in which folder of yours), or what "
            f"atomrl.load_config gave; got {type(config).__name__} {config!r}"
        )


def train_by_words(
    words: Words, command: str, launch: Launch, given: Given | None = None, config: Config | None = None
) -> Path:
    """Train as words say; returns the run directory.

    Args:
        words: of the command or the call.
        command: what a reader types to get the same table.
        launch: which process this is.
        given: beside the words.
        config: what the words say, if it is known; else it is loaded.

    Raises:
        UserError: as `train`; or they continue a run and would change what was not typed.
    """
    given = given or Given()
    with Crew(launch) as crew, given.handed_over():  # around all, so that a mistake is told once
        name, overrides = named_yaml(words.overrides, words.name, words.folder)
        config = config or load_config(name, overrides, words.folder, given.put_into)
        given.require_read(config)
        if config.resume and words.folder is None:
            refuse_forgotten(config, [*overrides, *(f"{key}=" for key in given.values)])
        return train_and_evaluate(config, name, command, crew)
