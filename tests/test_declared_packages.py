"""Every package that `src/` imports is declared in pyproject.toml, so that no other package's needs must bring it."""

import ast
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
OWN = {"atomrl", "rl_module"}
DISTRIBUTIONS = {"hydra": "hydra-core", "yaml": "pyyaml", "fairchem": "fairchem-core"}
"""Of modules that are called otherwise."""
ELSEWHERE = {"mace"}
"""Of an environment of its own, which cannot be an extra of this one."""


def imported() -> dict[str, str]:
    """{distribution: a file that imports it}."""
    found = {}
    for path in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
            for module in {name.partition(".")[0] for name in names} - OWN - ELSEWHERE - sys.stdlib_module_names:
                found[DISTRIBUTIONS.get(module, module.replace("_", "-"))] = str(path.relative_to(ROOT))
    return found


def declared() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [entry for name, entries in project["optional-dependencies"].items() if name != "dev" for entry in entries]
    return {re.match(r"[\w.-]+", entry)[0].lower() for entry in [*project["dependencies"], *extras]}


def test_every_import_is_declared():
    assert {name: path for name, path in imported().items() if name not in declared()} == {}
