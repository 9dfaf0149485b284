"""The walls of the package: which folder may import which, and that no arrow runs in a circle."""

import ast
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "atomrl"

MAY_IMPORT = {
    "util": set(),
    "core": {"util"},
    "workers": {"util"},
    "structures": {"core", "util", "workers"},
}
"""The lowest folders, and all of the package that each may import."""

NEVER = {
    "chemistry": {"force_fields", "config", "domains", "training"},
    "force_fields": {"chemistry", "config", "domains", "training"},
    "matching": {"config", "domains", "training"},
    "measures": {"rewards", "evaluation", "config", "domains", "training"},
    "rewards": {"evaluation", "domains", "training"},
    "evaluation": {"rewards", "domains", "training", "config"},
    "networks": {"training", "domains"},
    "policies": {"training", "domains", "config"},
}
"""What these folders must not know."""


def arrows() -> dict[tuple[str, str], set[str]]:
    """{(folder, imported folder): files that import}, of the package; a file at the top is a folder of its own."""
    found = defaultdict(set)
    for path in PACKAGE.rglob("*.py"):
        here = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                parts = name.split(".")
                if parts[0] == "atomrl" and len(parts) > 1 and parts[1] != here:
                    found[here, parts[1]].add(str(path.relative_to(PACKAGE)))
    return found


ARROWS = arrows()


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_the_lowest_folders_know_only_what_they_stand_on(folder: str) -> None:
    strange = {there: files for (here, there), files in ARROWS.items() if here == folder}
    assert {there: strange[there] for there in strange.keys() - MAY_IMPORT[folder]} == {}


@pytest.mark.parametrize("folder", NEVER)
def test_no_folder_knows_what_stands_on_it(folder: str) -> None:
    wrong = {there: files for (here, there), files in ARROWS.items() if here == folder and there in NEVER[folder]}
    assert wrong == {}


def test_no_arrow_runs_in_a_circle() -> None:
    below = defaultdict(set)
    for here, there in ARROWS:
        below[here].add(there)
    names = set(below) | {there for _, there in ARROWS}
    while names:
        ground = {name for name in names if not below[name] & names}
        assert ground, f"these folders import each other in a circle: {sorted(names)}"
        names -= ground


def test_the_core_knows_neither_configuration_nor_lightning() -> None:
    """And none of its messages names a key of a configuration: who reads the configuration adds it."""
    for path in (PACKAGE / "core").rglob("*.py"):
        source = path.read_text()
        assert "lightning" not in {
            name.split(".")[0]
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.ImportFrom | ast.Import)
            for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names])
        }
        for section in ("train.", "dataloader.", "model.time_step", "reward.type"):
            messages = [
                part.value
                for node in ast.walk(ast.parse(source))
                if isinstance(node, ast.Raise)
                for part in ast.walk(node)
                if isinstance(part, ast.Constant) and isinstance(part.value, str)
            ]
            assert not any(section in message for message in messages), f"{path}: {section}"


def imported_by(statement: str) -> set[str]:
    """Top names of the modules that a fresh interpreter holds after a statement."""
    code = f"import sys\n{statement}\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_reading_a_configuration_imports_no_physics() -> None:
    loaded = imported_by("from atomrl.config import load_config\nload_config('demo')")
    assert not loaded & {"ase", "rdkit", "tblite", "pymatgen", "chgnet", "smact", "lightning"}


@pytest.mark.parametrize("module", ["atomrl.workers.worker", "atomrl.force_fields.gfn2", "atomrl.chemistry.rdkit_task"])
def test_a_worker_imports_no_torch(module: str) -> None:
    assert "torch" not in imported_by(f"import {module}")
