"""The benchmark of the xTB pool compares one worker with two, and says what the parent spends."""

import numpy as np

from atomrl.data.batches import pad
from benchmarks import chemistry


def test_it_says_what_the_parent_spends(qm9_set, monkeypatch):
    monkeypatch.setattr(chemistry, "_molecules", lambda count: pad(qm9_set.select(np.arange(count))))
    ratio, *parents = chemistry.xtb_pool(4, 1)
    assert "4 molecules" in ratio.line()
    assert ratio.agreement == "0e+00 eV/Å"
    assert [parent.workers for parent in parents] == [1, 2]
    assert all(0 < parent.milliseconds < 1000 for parent in parents)
    assert all("ms per molecule" in parent.line() for parent in parents)
