from importlib import resources

import numpy as np
from safetensors.numpy import load_file

from atomrl.data.qm9 import MOLECULES, TRAIN, VALIDATION


def test_published_ids(qm9_set):
    with resources.as_file(resources.files("atomrl") / "assets" / "qm9_split.safetensors") as path:
        ids = load_file(path)
    assert ids["validation"].dtype == ids["test"].dtype == np.int32
    assert len(ids["validation"]) == VALIDATION
    assert len(ids["test"]) == MOLECULES - TRAIN - VALIDATION
    assert not np.isin(ids["validation"], ids["test"]).any()
    assert all((np.diff(part) > 0).all() for part in ids.values())
    assert np.isin(qm9_set.ids, ids["test"]).all()
