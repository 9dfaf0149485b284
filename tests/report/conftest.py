"""Runs that reports are made of."""

from pathlib import Path

import pytest
from report_runs import crystals, write_evaluation, write_log


@pytest.fixture(scope="module")
def crystal_run(tmp_path_factory) -> Path:
    folder = write_log(tmp_path_factory.mktemp("runs") / "crystals", config="experiment/prototypes/rl_dng")
    write_evaluation(folder / "evaluation", {"base": crystals(0.2), "trained": crystals(0.0)}, {"msun"})
    return folder
