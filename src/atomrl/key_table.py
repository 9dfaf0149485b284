"""The table of all keys out of the options themselves: `python -m atomrl.key_table > docs/keys.md`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from atomrl.config.crystals import CrystalConfig
from atomrl.config.molecules import MoleculeConfig
from atomrl.pretraining.crystal_run import LDMRun, VAERun
from atomrl.pretraining.edm_run import PretrainRun
from atomrl.pretraining.predictor_run import PredictorRun
from atomrl.pretraining.regressor_run import RegressorRun
from atomrl.util.option_words import allowed, type_name
from atomrl.util.options import Options

COMMAND = "python -m atomrl.key_table > docs/keys.md"

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

Every command takes `key=value` in [Hydra's grammar](https://hydra.cc/docs/advanced/override_grammar/basic/): a text
with `=`, `,`, braces or brackets is put in quotes, `'save_path="a=b"'`; a list is `[a,b]`, a mapping `{{a: 1}}`.
`atomrl evaluate` takes the keys of `reward`, `evaluation` and `model` of `atomrl train`. A key that does not exist, a
value that is not allowed and keys that contradict each other end the command with exit code 2 and one line, before
anything is loaded.
"""


def page() -> str:
    """The whole page."""
    return HEAD + "".join(f"\n## {title}\n\n{_table(kind())}" for title, kind in PARTS.items())


def _table(options: Options) -> str:
    """A table in Markdown."""
    lines = [("key", "type", "default", "allowed", "meaning"), ("---",) * 5, *_rows(options, "")]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _rows(options: Options, prefix: str) -> Iterator[tuple[str, ...]]:
    """One row for each key, sections opened."""
    for name, value in options:
        if isinstance(value, Options):
            yield from _rows(value, f"{prefix}{name}.")
            continue
        field = type(options).model_fields[name]
        words = allowed(field).removeprefix("must be ").removeprefix("must ")
        shown = type_name(field.annotation).replace("None", "null").replace("|", "\\|")
        yield f"`{prefix}{name}`", f"`{shown}`", f"`{_value(value)}`", words, _meaning(type(options), name)


def _meaning(kind: type[Options], name: str) -> str:
    """What is said about an option, where a class changes only its default by its base."""
    sections = (base for base in kind.__mro__ if issubclass(base, Options))
    said = (base.model_fields[name].description for base in sections if name in base.model_fields)
    return " ".join(next((text for text in said if text), "").replace("|", "\\|").split())


def _value(value: Any) -> str:
    """A value as a YAML has it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    return str(value)


if __name__ == "__main__":
    print(page(), end="")
