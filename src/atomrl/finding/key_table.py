"""All keys out of the options themselves: `python -m atomrl.finding.key_table > docs/keys.md`, and `atomrl keys`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from atomrl.config.crystals import CrystalConfig
from atomrl.config.molecules import MoleculeConfig
from atomrl.pretraining.crystal_run import LDMRun, VAERun
from atomrl.pretraining.edm_run import PretrainRun
from atomrl.pretraining.predictor_run import PredictorRun
from atomrl.pretraining.regressor_run import RegressorRun
from atomrl.util.option_words import allowed, type_name, unit_of
from atomrl.util.options import Options

COMMAND = "python -m atomrl.finding.key_table > docs/keys.md"

PARTS: dict[str, type[Options]] = {
    "`atomrl train`, molecules": MoleculeConfig,
    "`atomrl train`, crystals": CrystalConfig,
    "`atomrl pretrain edm`": PretrainRun,
    "`atomrl pretrain regressor`": RegressorRun,
    "`atomrl pretrain vae`": VAERun,
    "`atomrl pretrain ldm`": LDMRun,
    "`atomrl pretrain predictor`": PredictorRun,
}
"""Each part of the page, and the options that it lists."""

HEAD = f"""# All keys

Made by `{COMMAND}` from the options in the code; do not edit it.

`key=value` is in [Hydra's grammar](https://hydra.cc/docs/advanced/override_grammar/basic/): a text with `=`, `,`,
braces or brackets is put in quotes, `'save_path="a=b"'`; a list is `[a,b]`, a mapping `{{a: 1}}`. Of the keys of
`atomrl train`, `atomrl evaluate` takes those of `reward`, `evaluation` and `model`, `dataloader.smiles_path` and
`threads`; `atomrl sample` those of `model`, and with `--best-of` or `--steer` those of `reward`; `atomrl resume`
[what may change](finding-things.md#continue-a-run). A key that does not exist, a value that is not allowed and keys
that contradict each other end the command with exit code 2 and one line, before anything is loaded.
"""


def page() -> str:
    """The whole page."""
    return HEAD + "".join(f"\n## {title}\n\n{_table(kind())}" for title, kind in PARTS.items())


@dataclass(frozen=True)
class Key:
    """What is said of one key.

    Attributes:
        name: the whole dotted path.
        type: as one writes it.
        default: as a YAML has it.
        unit: of its number; empty: it has none.
        allowed: what it may be, where its type does not say all.
        meaning: in a sentence or two.
    """

    name: str
    type: str
    default: str
    unit: str
    allowed: str
    meaning: str


def keys_of(options: Options, prefix: str = "") -> Iterator[Key]:
    """All keys in their order, sections opened."""
    for name, value in options:
        if isinstance(value, Options):
            yield from keys_of(value, f"{prefix}{name}.")
            continue
        field = type(options).model_fields[name]
        words = allowed(field).removeprefix("must be ").removeprefix("must ")
        shown = type_name(field.annotation).replace("None", "null")
        yield Key(f"{prefix}{name}", shown, _value(value), unit_of(field), words, _meaning(type(options), name))


def _table(options: Options) -> str:
    """A table in Markdown."""
    lines = [("key", "type", "default", "unit", "allowed", "meaning"), ("---",) * 6, *map(_row, keys_of(options))]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _row(key: Key) -> tuple[str, ...]:
    """A key's cells."""
    shown, meaning = key.type.replace("|", "\\|"), key.meaning.replace("|", "\\|")
    return f"`{key.name}`", f"`{shown}`", f"`{key.default}`", key.unit, key.allowed, meaning


def _meaning(kind: type[Options], name: str) -> str:
    """What is said about an option, where a class changes only its default by its base."""
    sections = (base for base in kind.__mro__ if issubclass(base, Options))
    said = (base.model_fields[name].description for base in sections if name in base.model_fields)
    return " ".join(next((text for text in said if text), "").split())


def _value(value: Any) -> str:
    """A value as a YAML has it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    return str(value)


if __name__ == "__main__":
    print(page(), end="")
