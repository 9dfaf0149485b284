"""Models that come with the package, by name."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

BACKBONES = ("edm_qm9_small", "edm_qm9_alpha", "crystal_small")
REGRESSORS = ("qm9_alpha_regressor",)


def located(where: str | Path) -> Path:
    """The folder of a shipped model, or the path that is given."""
    shipped = str(where) in (*BACKBONES, *REGRESSORS)
    return Path(str(resources.files("atomrl") / "assets" / str(where))) if shipped else Path(where)
