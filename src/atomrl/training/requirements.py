"""What a training needs before it starts: files that somebody must have made, and code that can be called."""

from __future__ import annotations

from pathlib import Path

from atomrl.config import Config
from atomrl.domains import domain_of
from atomrl.training.experiment import check_objective
from atomrl.util.errors import UserError
from atomrl.util.trees import texts


def check_needs(config: Config) -> None:
    """Refuse to start without files that the experiment needs, see `Config.needs`.

    Raises:
        UserError: some are missing; all of them are named.
    """
    tree = config.model_dump()
    needs = tree.pop("needs")
    # `file.py:name` names the file
    named = {Path(form) for text in texts(tree) for form in (text, text.partition(".py:")[0] + ".py")} - {Path()}
    asked = {path: how for path, how in needs.items() if named & {Path(path), *Path(path).parents}}
    if missing := [f"{path} ({how})" for path, how in asked.items() if not Path(path).exists()]:
        raise UserError(f"this experiment needs files that are not in {Path.cwd()}: {'; '.join(missing)}")


def check_code(config: Config) -> None:
    """Import the code that a configuration names, and compare what it gives with signatures, before anything loads.

    Raises:
        UserError: code that is not there, that cannot be imported, or that does not take its arguments.
    """
    domain_of(config).check_code(config)
    check_objective(config.train.objective)
