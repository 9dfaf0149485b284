"""What a configuration says of objects that a Python program gave."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from atomrl.config.sections import TARGET, Config
from atomrl.user_code.given import MARK, handed, is_object, objects_in
from atomrl.util.errors import UserError


def objects_of(config: Config) -> dict[str, list[str]]:
    """{argument of `atomrl.train`: names} of what was an object of a program, and is in no file."""
    return {argument: objects_in(value) for argument, value in _with_objects(config).items()}


def _with_objects(config: Config) -> dict[str, Any]:
    """{argument of `atomrl.train`: what the configuration says of it}, of those in which there are objects."""
    reward = config.reward.model_dump()
    named = {
        "reward": reward.get("components"),
        "force_field": reward.get("force_field"),
        "objective": config.train.objective,
        "policy": config.model.backbone,
    }
    return {argument: value for argument, value in named.items() if objects_in(value)}


def call_with_objects(function: str, run: Path, config: Config, *overrides: str) -> str:
    """A call of `atomrl` about a run, with the objects that it needs: `atomrl.resume('my_run', reward=f)`."""
    given = [f"{argument}={_typed(value)}" for argument, value in _with_objects(config).items()]
    words = [repr(list(overrides))] if overrides else []
    return f"atomrl.{function}({', '.join([repr(str(run)), *words, *given])})"


def require_objects(config: Config, described: Path) -> None:
    """Refuse a run that needs objects of a program which were not handed over.

    Args:
        config: of the run.
        described: its config.yaml.

    Raises:
        UserError: there are some.
    """
    missing = {
        argument: _listed(absent)
        for argument, names in objects_of(config).items()
        if (absent := [name for name in names if name not in handed()])
    }
    if not missing:
        return
    said = " and ".join(f"{argument} ({names})" for argument, names in missing.items())
    calls = " or ".join(call_with_objects(function, described.parent, config) for function in ("resume", "Run"))
    raise UserError(
        f"{described}: the run's {said} was an object of a Python program, which no file holds: in Python give it "
        f"again, {calls}; what is imported from a file of its own is recorded by name, for the command line too"
    )


def _typed(value: Any) -> str:
    """A value of a configuration as a program gives it: weights, options and names beside the objects are there too."""
    if isinstance(value, Mapping):
        if set(value) == {TARGET}:
            return _typed(value[TARGET])
        return f"{{{', '.join(f'{key!r}: {_typed(inner)}' for key, inner in value.items())}}}"
    if isinstance(value, list):
        return _typed(value[0]) if len(value) == 1 else f"[{', '.join(map(_typed, value))}]"
    return value.removeprefix(MARK) if isinstance(value, str) and is_object(value) else repr(value)


def _listed(names: list[str]) -> str:
    """One name, or a list of several."""
    plain = [name.removeprefix(MARK) for name in names]
    return plain[0] if len(plain) == 1 else f"[{', '.join(plain)}]"
