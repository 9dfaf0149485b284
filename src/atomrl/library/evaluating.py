"""`atomrl.evaluate`: a base and a trained model on fresh samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from inspect import signature
from pathlib import Path
from typing import Any

from atomrl.checkpoints.named import named_model
from atomrl.config.naming import listed_words
from atomrl.evaluation.evaluate import Report
from atomrl.library.given import Given
from atomrl.library.loading import EVALUATED, SEED
from atomrl.library.model_evaluation import ModelEvaluation
from atomrl.library.run import Run
from atomrl.sampling.steering_options import SteeringOptions
from atomrl.util.errors import UserError
from atomrl.util.glibc_malloc import freed_memory_kept

REMEDY = "trust_code=True"
"""How a call says that a run's code may run."""


# A keyword for each option of `atomrl evaluate`, so that an editor completes them; half of the lines describe them.
@freed_memory_kept()
def evaluate(
    model: str | Path | Run,
    *,
    base: str | Path | Run | None = None,
    samples: int = EVALUATED,
    time_step: int | None = None,
    seed: int = SEED,
    best_of: int = 0,
    steer: int = 0,
    steer_temperature: float | None = None,
    steer_places: int | None = None,
    reject: int = 0,
    known: int = 0,
    context: Mapping[str, str | float] | None = None,
    overrides: Sequence[str] = (),
    output: str | Path = "evaluation",
    keep: str | Path | None = None,
    device: str = "auto",
    trust_code: bool = False,
) -> Report:
    """Judge fresh samples of a model, beside those of the model that it came from, with the same seed.

    Examples:
        >>> report = atomrl.evaluate("edm_qm9_small", samples=4, time_step=10, output="my_table")
        >>> report.main.columns[0].metrics.summary["molecule_stability"].denominator
        4

    Args:
        model: a run, by its directory, its checkpoint or as a `Run`; or another model, by its name or path.
        base: what it is compared with, as `model`; None: what the run started from.
        samples: of each column.
        time_step: T of the walk; 100 for molecules and 50 for crystals if None.
        seed: of sizes and noise.
        best_of: a control: the best of so many samples of the base, by the training's reward.
        steer: another one: samples of the base, each walked with so many particles that are resampled on the way by the
            training's reward of z0_pred.
        steer_temperature: a particle's chance is proportional to exp(score / temperature), scores in units of their
            standard deviation among the particles; 0: all become copies of the best one; 0.5 if None.
        steer_places: how many times particles are resampled, at most T; 3 if None.
        reject: another one, without scoring: drawn again up to so many times.
        known: so many of the reference set, or of QM9, as a further column.
        context: {name: value} that conditional models are asked for; they draw the others. None: as the run's prompts,
            `dataloader.context`; {}: all are drawn.
        overrides: `key=value` of the sections `reward`, `evaluation` and `model`, e.g. `evaluation.relaxed=200`, or
            `threads`.
        output: folder for evaluation.md, .json, .parquet and the samples of every column.
        keep: folder that keeps what is sampled and judged for other evaluations with the same folder; None: the output
            folder keeps it until the tables are written.
        device: `auto`, `cpu` or `cuda`.
        trust_code: run code that the run's config.yaml names.

    Returns:
        The tables; a notebook shows them.

    Raises:
        UserError: as `load`; the folder holds an evaluation; code that is not trusted, or an object of the run that is
            not given, `atomrl.evaluate(atomrl.Run(folder, reward=f))`, or another one than the run was trained with.
    """
    overrides = listed_words(overrides)
    handed = [run.given for run in (base, model) if isinstance(run, Run)]
    place, base = _place(model), None if base is None else _place(base)
    command = _call(
        place,
        base=base,
        samples=samples,
        time_step=time_step,
        seed=seed,
        best_of=best_of,
        steer=steer,
        steer_temperature=steer_temperature,
        steer_places=steer_places,
        reject=reject,
        known=known,
        context=None if context is None else dict(context),
        overrides=overrides,
        output=output,
        keep=keep,
        device=device,
        trust_code=trust_code,
    )
    trust_code = trust_code or (isinstance(model, Run) and model.trust_code)
    with ExitStack() as handing:
        for given in handed or [Given()]:
            handing.enter_context(given.handed_over())
        if isinstance(model, Run):
            model.given.require_same(model.folder, model.config)
        alone = base is None and named_model(place).described is None
        asked = ModelEvaluation(
            str(place) if alone else base,
            None if alone else str(place),
            samples,
            time_step,
            seed,
            best_of,
            SteeringOptions(steer, steer_temperature, steer_places),
            reject,
            known,
            overrides,
            Path(output),
            device,
            None if keep is None else Path(keep),
            context,
        )
        return asked.report(command, trust_code, REMEDY)


def _place(model: str | Path | Run) -> str | Path:
    """Where a model is that was named, or given as a run.

    Raises:
        UserError: it is something else.
    """
    if not isinstance(model, str | Path | Run):
        raise UserError(f"{type(model).__name__} is loaded already: give atomrl.evaluate a Run, or its name or path")
    return model.folder if isinstance(model, Run) else model


def _call(place: str | Path, **arguments: Any) -> str:
    """The call that makes the same tables: with what is not as it is by default."""
    usual = {name: given.default for name, given in signature(evaluate).parameters.items()} | {"overrides": []}
    plain = {name: str(value) if isinstance(value, Path) else value for name, value in arguments.items()}
    words = [f"{name}={value!r}" for name, value in plain.items() if value != usual[name]]
    return f"atomrl.evaluate({', '.join([repr(str(place)), *words])})"
