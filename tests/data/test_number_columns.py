"""Which texts of a CSV file are numbers, which say that a value is missing, and which are neither."""

import io

import numpy as np
import pandas as pd
import pytest

from atomrl.data.number_columns import MISSING, number_column


def test_missing_is_what_pandas_reads_as_missing():
    words = [*sorted(MISSING), "1.5"]
    frame = pd.read_csv(io.StringIO("x,y\n" + "".join(f"{word},1\n" for word in words)))
    assert frame["x"].isna().sum() == len(MISSING)
    column = number_column(words)
    assert column.numeric
    assert column.filled == 1
    np.testing.assert_array_equal(column.values, [*[np.nan] * len(MISSING), 1.5])


def test_numbers_of_every_size():
    texts = ["1e39", " -1e-50 ", "1.7e308", "+.5", "7", "0"]
    column = number_column(texts)
    assert column.numeric
    assert column.values.tolist() == [1e39, -1e-50, 1.7e308, 0.5, 7.0, 0.0]


@pytest.mark.parametrize("word", ["1.0 eV", "1,5", "inf", "-Infinity", "1e309", "1_000", "missing", "-", "N.A.", "[1]"])
def test_what_is_neither_is_named(word):
    column = number_column(["1.0", word, "NA"])
    assert not column.numeric
    assert column.why_not([3, 7, 9], ["1.0", word, "NA"]) == (
        f"1 of its 2 values are not finite numbers: row 7 ({word!r})"
    )


def test_nothing_is_no_number():
    assert not number_column(["", "NA"]).numeric
    assert number_column(["", "NA"]).why_not([1, 2], ["", "NA"]) == "it is empty"
