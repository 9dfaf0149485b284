"""Tasks that worker processes import in the tests of the build."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from atomrl.workers.failure import Failure


def relax(item: dict[str, Any]) -> dict[str, Any]:
    """A cube with one atom; notes its own run in the file that the environment names."""
    with Path(os.environ["ATOMRL_TEST_CALLS"]).open("a") as file:
        file.write(f"{item['prototype']}\n")
    if item["prototype"] == "bad":
        raise Failure("overlap")
    if item["prototype"] == "hang":
        time.sleep(60)
    return {"numbers": [11], "energy": -1.0}
