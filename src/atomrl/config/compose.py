"""From YAML to a typed configuration: composed and overridden by Hydra, checked by its own fields (`options.py`)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import yaml
from hydra import compose, initialize_config_dir, initialize_config_module
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from atomrl.config.as_typed import as_typed
from atomrl.config.crystals import CrystalConfig, without_unsaid
from atomrl.config.molecules import MoleculeConfig, MoleculeReward
from atomrl.config.naming import key_of, listed_words, named_yaml
from atomrl.config.objective_keys import FORWARD, OF_SUMS, READ_BY
from atomrl.config.published import UNSET_IF_NULL, renamed, renamed_overrides
from atomrl.config.published_crystals import HUB, is_looked_up
from atomrl.config.published_groups import Composition, composition
from atomrl.config.sections import Config, TrainSection
from atomrl.config.switches import each_key, require_switched_on
from atomrl.config.yaml_numbers import require_plain_numbers
from atomrl.util.errors import UserError, first_line
from atomrl.util.options import Options
from atomrl.util.registry import registered_names
from atomrl.util.trees import texts

EXPERIMENTS = "experiment/"
"""Folder of the YAML files that `experiment=` names."""

SAMPLING = "sampling"
"""Key of a checkpoint's card: the section `model` of the run that it is of."""

SWEPT = re.compile(r"Ambiguous value for argument '\+*(.*)'")
"""What Hydra says of `key=1,2`, which it would start a run of each for."""

DOMAINS: dict[str, type[Config]] = {"molecules": MoleculeConfig, "crystals": CrystalConfig}

T = TypeVar("T", bound=Options)

Further = Callable[[dict[str, Any], Sequence[str]], Mapping[str, Any]]
"""What a program gives beside a YAML and overrides: (values that these make, the overrides) -> all values."""


def load_config(
    name: str, overrides: Sequence[str] = (), folder: Path | None = None, further: Further | None = None
) -> Config:
    """Compose, validate and type a configuration.

    Examples:
        >>> config = load_config("demo", ["experiment=prototypes/rl_dng", "seed=3"])
        >>> (config.domain, config.seed, config.model.backbone)
        ('crystals', 3, 'crystal_small')

    Args:
        name: of a YAML file, without its ending, in the package's `conf/` or in `folder`.
        overrides: `key=value`, as Hydra writes them. With the default name and no folder they may name another YAML of
            the package, `experiment=prototypes/rl_dng`, as they do in `atomrl train`.
        folder: where the user's own YAML files are.
        further: what a program gives beside these.

    Raises:
        UserError: unknown or contradictory keys, values of the wrong type, no such file, or a file that is not YAML; or
            an override of a key that the chosen objective does not read, or of what is switched off; or no list of
            overrides.
    """
    overrides = listed_words(overrides)
    _require_pairs(overrides)
    if folder is None:
        name, overrides = named_yaml(overrides, name)
    if published := composition(name, overrides, folder):
        overrides = _ours(published.ours)
        composed = _override(_published(published), overrides)
    else:
        typed, overrides = overrides, _ours(overrides)
        _require_file(name, folder)
        plain = _shipped(name) if folder is None else _as_written(_composed(name, (), folder))
        named = renamed(_without_unset(plain, typed))
        composed = _composed(name, _forced(overrides), folder) if named == plain else _override(named, overrides)
    config = _typed(_values(composed), further, overrides)
    require_read(config, overrides)
    return config


def require_read(config: Config, overrides: Sequence[str]) -> None:
    """Refuse overrides of a training that would change nothing.

    Args:
        config: with the overrides.
        overrides: `key=value`, in the names of this package.

    Raises:
        UserError: the chosen objective does not read one, what it is about is switched off, or another force field than
            that of `reward.type` computes.
    """
    _require_read_by_objective(config.train, each_key(config, overrides))
    require_meant(config, overrides)


def require_meant(config: Config, overrides: Sequence[str]) -> None:
    """The part of `require_read` that is no matter of the objective.

    Raises:
        UserError: what an override is about is switched off, or `reward.type` is not what computes.
    """
    require_switched_on(config, overrides)
    if isinstance(config.reward, MoleculeReward):
        config.reward.require_one_force_field([key_of(override) for override in each_key(config, overrides)])


def _ours(overrides: Sequence[str]) -> list[str]:
    """Overrides in the names of this package, text as it was typed."""
    return as_typed(renamed_overrides(overrides), tuple(DOMAINS.values()))


def _without_unset(tree: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A tree without the published keys that overrides set to null, if that is as good as leaving them out."""
    unset = {key_of(word) for word in overrides if word.endswith("=null")} & UNSET_IF_NULL
    return {
        key: {name: inner for name, inner in value.items() if f"{key}.{name}" not in unset}
        if isinstance(value, Mapping)
        else value
        for key, value in tree.items()
        if key not in unset
    }


def _published(published: Composition) -> dict[str, Any]:
    """A published experiment in our names; what it takes from other keys is there."""
    composed = _composed(published.name, published.words, published.folder)
    OmegaConf.register_new_resolver(HUB, lambda name: f"${{{HUB}:{name}}}", replace=True)  # `renamed` says where it is
    try:
        tree = _looked_up(composed, _as_written(composed))
    finally:
        OmegaConf.clear_resolver(HUB)
    return _values(OmegaConf.create(renamed(tree)))


def _looked_up(composed: DictConfig, written: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values as they are written; those that stand elsewhere, such as `${oc.env:HOME}`, as they are found there.

    What nothing reads, such as Hydra's own folders, is not looked for.
    """
    tree = dict(written)
    for name, value in written.items():
        if isinstance(value, dict):
            tree[name] = _looked_up(composed[name], value, f"{prefix}{name}.")
        elif is_looked_up(f"{prefix}{name}", value):
            tree[name] = _resolved(partial(composed.__getitem__, name))
    return tree


def _override(tree: Mapping[str, Any], overrides: Sequence[str]) -> DictConfig:
    """A tree with other values, as Hydra overrides it: that composes files."""
    with TemporaryDirectory() as folder:
        (Path(folder) / "options.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(dict(tree))), encoding="utf-8")
        return _composed("options", _forced(overrides), Path(folder))


def _require_read_by_objective(train: TrainSection, overrides: Sequence[str]) -> None:
    """Raise UserError for overrides of what the objective does not read."""
    given: list[str] = []
    names: set[str] = set()
    readers = registered_names("atomrl.core.objectives")
    unread = {name.partition(".")[0] for name in train.unread} - {str(train.objective)}  # it reads its own section
    for override in overrides:
        text = override.lstrip("+~")
        section, _, key = text.partition("=")[0].partition(".")
        name = key.partition(".")[0]
        if section == "train" and name in unread:
            given.append(text)
            names.add(name)
            readers = tuple(reader for reader in READ_BY[name] if reader in readers)
    if not given:
        return
    chosen, way = f"train.objective={train.objective}", f"train.objective={' or '.join(readers)}"
    if train.objective in readers:  # it is the advantages that leave them out
        chosen, way = f"{chosen} with train.advantages={train.advantages}", "train.advantages=sum"
    elif {*FORWARD} & {*readers} and names & {*OF_SUMS}:
        way = f"{way} ({', '.join(FORWARD)} with train.advantages=sum)"
    way = f"{way} does: choose that, or leave it out"
    if not readers:
        way = "no objective reads all of these: leave out what it does not"
    raise UserError(f"{chosen} does not read {', '.join(given)}; {way}")


def with_overrides(options: T, overrides: Sequence[str]) -> T:
    """Options with other values, `key=value` each, which mean what they mean in `atomrl train`.

    Raises:
        UserError: as `load_config`.
    """
    if not overrides:
        return options
    _require_pairs(overrides)
    return type(options).read(_values(_override(options.model_dump(), as_typed(overrides, [type(options)]))))


def with_further(config: Config, further: Further, overrides: Sequence[str] = ()) -> Config:
    """A configuration with what a program gives beside it, and beside the overrides that it has already.

    Raises:
        UserError: as `load_config`.
    """
    return _typed(config.model_dump(), further, overrides)


def read_config(path: Path) -> Config:
    """The configuration in the config.yaml of a run, which may be somebody else's.

    Raises:
        UserError: as `load_config`; or a value is to be looked up, e.g. in the environment.
    """
    try:
        require_plain_numbers(path)
        loaded = OmegaConf.load(path)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise _no_yaml(str(path), error) from error
    _require_resolved(path, loaded)
    try:
        return from_yaml(loaded)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _require_resolved(path: Path, loaded: DictConfig | ListConfig) -> None:
    """Raise UserError for a value that is looked up: a run writes none, and somebody else's could name a secret."""
    for text in texts(OmegaConf.to_container(loaded, resolve=False)):
        if "${" in text:
            raise UserError(
                f"{path}: {text} would have to be looked up elsewhere; the config.yaml of a run holds plain values only"
            )


def from_yaml(composed: DictConfig | ListConfig) -> Config:
    """Typed and validated configuration out of a loaded YAML.

    Raises:
        UserError: as `load_config`.
    """
    return _typed(_values(composed))


def _typed(values: Mapping[str, Any], further: Further | None = None, overrides: Sequence[str] = ()) -> Config:
    """Typed and validated, with what a program gives beside these.

    Args:
        values: that a YAML and overrides make.
        further: see `load_config`.
        overrides: those among the values that were typed, in the names of this package.
    """
    tree: Mapping[str, Any] = renamed(values)
    if further is not None:
        tree = further(dict(tree), overrides)
    domain = tree.get("domain", MoleculeConfig().domain)
    if not isinstance(domain, str) or domain not in DOMAINS:
        raise UserError(f"domain={domain}: must be one of {', '.join(DOMAINS)}")
    return DOMAINS[domain].read(without_unsaid(tree, overrides))


def as_trained(domain: str, card: Mapping[str, Any]) -> Config:
    """The documented defaults of a domain; with the sampler of its run for a run's checkpoint.

    Raises:
        UserError: the card holds values that mean nothing.
    """
    return from_yaml(OmegaConf.create({"domain": domain, "model": dict(card.get(SAMPLING, {}))}))


def to_yaml(options: Options) -> str:
    """The resolved configuration as YAML."""
    return OmegaConf.to_yaml(OmegaConf.create(options.model_dump()))


def _require_pairs(overrides: Sequence[str]) -> None:
    """Raise UserError for a word that is not `key=value`."""
    for override in overrides:
        if "=" not in override:
            raise UserError(f"{override!r} is not of the form key=value")


def _forced(overrides: Sequence[str]) -> list[str]:
    """Overrides as Hydra takes them: a key that the YAML leaves at its default can be overridden too.

    The options refuse unknown keys.
    """
    return [text if text[0] in "+~" else f"++{text}" for text in overrides]


def _composed(name: str, words: Sequence[str], folder: Path | None) -> DictConfig:
    """Compose by Hydra, with errors of ours."""
    _require_pairs(words)
    try:
        return _compose(name, list(words), folder)
    except OverrideParseException as error:
        wrong = error.override.removeprefix("++")
        key = wrong.partition("=")[0]
        if (entry := re.sub(r"\[(\d+)\]", r".\1", key)) != key:
            raise UserError(f"{wrong}: an entry of a list is named without brackets, {entry}") from error
        raise UserError(
            f"{wrong}: Hydra cannot read this value; put it in quotes of its own, '{_quoted(wrong)}'"
        ) from error
    except HydraException as error:
        if swept := SWEPT.match(str(error)):
            raise UserError(
                f"{swept[1]}: these are several values, and a run has one: start a run for each; a list is [1,2]"
            ) from error
        raise UserError(f"configuration {name}: {first_line(error)}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise _no_yaml(f"configuration {name}", error) from error
    except OSError as error:  # of a file that is not to be read, or that holds a number alone
        raise UserError(f"configuration {name} cannot be read: {first_line(error)}; give keys with values") from error


def _as_written(composed: DictConfig) -> dict[str, Any]:
    """Values before overrides: what these are to give may be missing, and interpolations stay."""
    tree = OmegaConf.to_container(composed, resolve=False, throw_on_missing=False)
    return {str(key): value for key, value in tree.items()} if isinstance(tree, dict) else {}


@cache
def _shipped(name: str) -> dict[str, Any]:
    """A YAML of the package as it is written, not to be changed: Hydra takes 0.1 s to compose one."""
    return _as_written(_composed(name, (), None))


def _values(composed: DictConfig | ListConfig) -> dict[str, Any]:
    """Plain values, interpolations resolved."""
    tree = _resolved(lambda: composed, throw_on_missing=True)
    if not isinstance(tree, dict):
        raise UserError("configuration: it is a list, and must be keys with values")
    return {str(key): value for key, value in tree.items()}


def _resolved(found: Callable[[], Any], throw_on_missing: bool = False) -> Any:
    """What is found in a configuration, interpolations resolved, as plain values."""
    try:
        value = found()
        is_tree = OmegaConf.is_config(value)
        return OmegaConf.to_container(value, resolve=True, throw_on_missing=throw_on_missing) if is_tree else value
    except OmegaConfBaseException as error:
        key = f"{error.full_key}: " if error.full_key else ""
        raise UserError(f"configuration: {key}{first_line(error)}") from error


def _compose(name: str, words: list[str], folder: Path | None) -> DictConfig:
    """Compose by Hydra, from the package or from a folder of the user's."""
    if folder is None:
        with initialize_config_module("atomrl.conf", version_base="1.3"):
            return compose(name, words)
    require_plain_numbers(folder / f"{name.removesuffix('.yaml')}.yaml")
    with initialize_config_dir(str(folder.resolve()), version_base="1.3"):
        return compose(name, words)


def _require_file(name: str, folder: Path | None) -> None:
    """Raise UserError for a name without a YAML file, and say which there are."""
    if folder is not None and not folder.is_dir():
        raise UserError(f"--config-dir {folder}: no such folder")
    root = Path(str(files("atomrl.conf"))) if folder is None else folder
    if not (root / f"{name.removesuffix('.yaml')}.yaml").is_file():
        there = sorted(_said(str(path.relative_to(root).with_suffix(""))) for path in root.rglob("*.yaml"))
        where = "the package" if folder is None else str(folder)
        raise UserError(f"{_said(name)}: {where} has no such configuration; it has {', '.join(there) or 'none'}")


def _said(name: str) -> str:
    """How the command line names a configuration."""
    experiment = name.removeprefix(EXPERIMENTS)
    return f"--config-name {name}" if experiment == name else f"experiment={experiment}"


def _quoted(override: str) -> str:
    """The override with its value in quotes that Hydra reads."""
    key, _, value = override.partition("=")
    return f'{key}="{value}"'


def _no_yaml(what: str, error: yaml.YAMLError | UnicodeDecodeError) -> UserError:
    """One line that says what is wrong with a file, and where."""
    said = re.sub(r"\s+", " ", str(error))
    return UserError(f"{what} is not YAML: {said}")
