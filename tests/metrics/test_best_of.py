import numpy as np
import pytest

from atomrl.evaluation.best_of import best_of_n
from atomrl.util.errors import UserError


def test_best_of_each_block():
    scores = np.array([1.0, 3.0, 2.0, np.nan, -5.0, -7.0, np.nan, np.nan, np.nan])
    assert best_of_n(scores, 3).tolist() == [1, 4, 6]
    assert best_of_n(scores, 1).tolist() == list(range(9))
    assert best_of_n(scores[:0], 3).shape == (0,)


@pytest.mark.parametrize("n", [0, 4])
def test_blocks_must_divide(n):
    with pytest.raises(UserError, match=f"9 scores into blocks of {n}"):
        best_of_n(np.zeros(9), n)
