"""Where the hull of a reference set comes from."""

from pathlib import Path

import pytest
import small_crystal_set

from atomrl.data.crystal_reference import CrystalReference
from atomrl.data.prototype_set import ASSETS, HULL_FILE
from atomrl.util.errors import UserError


def test_a_set_without_a_hull_may_take_the_shipped_one(tmp_path: Path) -> None:
    reference = CrystalReference.load(str(small_crystal_set.write(tmp_path / "set")))
    shipped = CrystalReference.load("prototypes").hull()
    (tmp_path / "set" / HULL_FILE).unlink(missing_ok=True)
    with pytest.raises(UserError, match="no hull at"):
        reference.hull()
    assert reference.hull("prototypes").key == shipped.key
    assert reference.hull(str(ASSETS / HULL_FILE)).key == shipped.key
    with pytest.raises(UserError, match="no hull at nowhere"):
        reference.hull("nowhere")
