from importlib import resources

import numpy as np
import pytest
from safetensors.numpy import load_file

from atomrl.data.qm9 import MOLECULES, TRAIN, VALIDATION, load_qm9
from atomrl.util.errors import UserError


def test_published_ids(qm9_set):
    with resources.as_file(resources.files("atomrl") / "assets" / "qm9_split.safetensors") as path:
        ids = load_file(path)
    assert ids["validation"].dtype == ids["test"].dtype == np.int32
    assert len(ids["validation"]) == VALIDATION
    assert len(ids["test"]) == MOLECULES - TRAIN - VALIDATION
    assert not np.isin(ids["validation"], ids["test"]).any()
    assert all((np.diff(part) > 0).all() for part in ids.values())
    assert np.isin(qm9_set.ids, ids["test"]).all()


def test_a_damaged_cache_is_named(tmp_path):
    (tmp_path / "qm9-v1.safetensors").write_bytes(b"cut")
    with pytest.raises(UserError, match=r"qm9-v1\.safetensors cannot be read .*: delete it, and it is made again"):
        load_qm9(tmp_path)
