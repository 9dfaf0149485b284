"""The parts of a YAML that pages about code of one's own show compose, and their code takes their arguments."""

import re
import shutil
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from atomrl.config import load_config
from atomrl.training.requirements import check_code

ROOT = Path(__file__).parents[2]


def parts(page: str) -> list[str]:
    return re.findall(r"^```yml\n(.*?)^```$", (ROOT / "docs" / page).read_text(), flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(
    ("page", "chosen", "domain"),
    [
        ("add-a-reward.md", [0], "molecules"),
        ("your-own-code.md", [0, 1, 3], "molecules"),
        ("your-own-code.md", [2], "crystals"),
    ],
)
def test_parts_of_a_yaml(
    page: str, chosen: list[int], domain: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    found = parts(page)
    assert set(chosen) <= set(range(len(found)))
    together = OmegaConf.merge({"domain": domain}, *(OmegaConf.create(found[number]) for number in chosen))
    OmegaConf.save(together, "shown.yaml")
    check_code(load_config("shown", [], tmp_path))
