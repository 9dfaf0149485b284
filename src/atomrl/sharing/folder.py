"""The folder that is shared: weights as safetensors, what describes them, the run's configuration, tables, a card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from atomrl.checkpoints.folder import CONFIG
from atomrl.checkpoints.named import EVALUATION, Named, named_model
from atomrl.checkpoints.shipped import BACKBONES
from atomrl.checkpoints.stored import Stored, read_named
from atomrl.config import Config, as_trained, read_config, to_yaml
from atomrl.core.protocols import Model
from atomrl.domains import domain_for, model_of
from atomrl.domains.base import Domain
from atomrl.evaluation.evaluate import JSON, drawn_by
from atomrl.sharing.card import Shared, card_text
from atomrl.sharing.evaluated import Evaluated, read_evaluation
from atomrl.sharing.scrubbed import shared_config, without_paths, without_secrets
from atomrl.util.errors import UserError
from atomrl.util.files import write_json, write_whole

README = "README.md"


@dataclass(frozen=True)
class Asked:
    """What the user says of the weights that are shared.

    Attributes:
        repository: `user/name`.
        licence: of the weights, as the hub calls it; None: that of the shipped model that they started from.
        evaluation: folder of their evaluation; None: that of the run, if it judged these weights.
    """

    repository: str
    licence: str | None = None
    evaluation: Path | None = None


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        files: in the folder, in the order in which a reader wants them.
        remarks: what the user should know of it, a sentence each.
    """

    files: tuple[Path, ...]
    remarks: list[str] = field(default_factory=list)


def write_shared(model: str, asked: Asked, folder: Path) -> Written:
    """Write a model for others.

    Args:
        model: as of `named_model`; of a run directory the averaged weights of its latest checkpoint.
        asked: what is to be said of it.
        folder: for the files.

    Raises:
        UserError: no such model, no licence, an evaluation of other weights, or the folder cannot be written.
    """
    named = named_model(model)
    stored = read_named(named)
    domain: Domain[Any, Any] = domain_for(stored)
    loaded = model_of(stored, as_trained(domain.name, stored.card))
    config, secrets = (None, []) if named.described is None else shared_config(read_config(named.described))
    evaluated, missing = _evaluated(named, loaded, asked)
    shared = Shared(
        repository=asked.repository,
        licence=asked.licence or _licence(config, named),
        noun=domain.noun,
        domain=domain.name,
        format=domain.formats[0],
        sizes=loaded.sizes,
        parameters=_parameters(loaded),
        card=_card(stored),
        config=config,
        iterations=_iterations(stored),
        evaluated=evaluated,
        conditioned=() if loaded.conditioning is None else tuple(loaded.conditioning.names),
    )
    own = loaded.card.keys() - {"origin"}  # which is where it lay on this machine; its card says what it was made of
    start = {"origin": "not recorded"}
    domain.save(folder, loaded, start | {name: value for name, value in shared.card.items() if name not in own})
    if config is not None:
        write_whole(folder / CONFIG, to_yaml(config))
    for name, table in {} if evaluated is None else evaluated.tables.items():
        write_json(folder / name, table)
    write_whole(folder / README, card_text(shared))
    return Written(_ordered(folder), [*missing, *_left_out(secrets)])


def _evaluated(named: Named, loaded: Model, asked: Asked) -> tuple[Evaluated | None, list[str]]:
    """The evaluation of these weights; None, and why, where there is none.

    Raises:
        UserError: the one that the user gave is not of these weights.
    """
    weights = drawn_by(loaded).weights
    if asked.evaluation is not None:
        return read_evaluation(asked.evaluation, weights), []
    none = "the card says that no evaluation was made"
    if named.weights.is_dir() and (named.weights / JSON).is_file():
        raise UserError(
            f"{named.weights} is a folder to share already, with its {JSON}: push the run that it was made of, or say "
            "--evaluation FOLDER"
        )
    folder = None if named.described is None else named.described.parent / EVALUATION
    if folder is None or not (folder / JSON).is_file():
        return None, [f"{none}: `atomrl evaluate --trained` makes one, --evaluation FOLDER takes it in"]
    try:
        return read_evaluation(folder, weights), []
    except UserError as error:
        return None, [f"{none}, since {error}"]


def _licence(config: Config | None, named: Named) -> str:
    """That of the shipped model that a run started from.

    Raises:
        UserError: it started from none.
    """
    if config is not None and config.model.backbone in BACKBONES:
        return "apache-2.0"
    start = "" if config is None else f", and it started from {config.model.backbone}"
    raise UserError(
        f"{named.origin}: which licence the weights have is for you to say{start}: add --licence, e.g. "
        "--licence apache-2.0; only a run from a shipped model has one of its own"
    )


def _card(stored: Stored) -> dict[str, Any]:
    """Everything that describes the weights, without secrets and paths of this machine."""
    found: dict[str, Any] = without_paths(without_secrets(_plain(stored.card)))
    return found


def _plain(value: Any) -> Any:
    """Mappings and sequences as JSON has them."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def _iterations(stored: Stored) -> int | None:
    """How many a run's checkpoint stands after; None: it is none, or does not say so."""
    last = stored.card.get("iteration")
    return last + 1 if isinstance(last, int) else None


def _parameters(model: Model) -> int:
    """How many numbers the model has."""
    policy = model.policy()
    assert isinstance(policy, torch.nn.Module)
    return sum(parameter.numel() for parameter in policy.parameters())


def _left_out(secrets: list[str]) -> list[str]:
    """What to say of secrets."""
    return [f"left out of {CONFIG}, since they look like secrets: {', '.join(secrets)}"] if secrets else []


def _ordered(folder: Path) -> tuple[Path, ...]:
    """All files, the card first."""
    return tuple(sorted((path for path in folder.iterdir() if path.is_file()), key=lambda path: path.name))
