"""Python that the documents show: the README's block is the example, and every page's blocks run."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import mp_20_files
import numpy as np
import pytest
import torch
import yaml

from atomrl.chemistry.rdkit import RdkitRecord
from atomrl.config import load_config
from atomrl.core.prompts import PromptPlan, SizeDistribution
from atomrl.core.records import Structures
from atomrl.core.rollout import draw
from atomrl.data.crystal_csv import load_crystal_csv
from atomrl.export.molecules import Annotated, write_extxyz, write_sdf
from atomrl.force_fields.base import Evaluation
from atomrl.policies.toy import LearnedStdGaussian, SubspaceGaussian
from atomrl.structures.crystals import CellBounds
from atomrl.training.run import train

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
import small_backbone

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "python_side.py"
REWARD = ROOT / "examples" / "custom_reward.py"
PAGES = sorted((ROOT / "docs").glob("*.md"))
WITH_LINKS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
WITH_LINKS += sorted((ROOT / "src" / "atomrl" / "assets").glob("*/README.md"))

# Fewer and smaller, nothing else: the demo's T = 50 and 8 x 16 samples would take minutes.
SMALL = [
    "dataloader.epoches=2",
    "dataloader.sample_group_size=2",
    "dataloader.each_prompt_sample=2",
    "model.time_step=10",
    "threads=1",
    "evaluation.samples=4",
    "evaluation.time_step=10",
]


def python_blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def test_readme_shows_the_example() -> None:
    assert python_blocks(ROOT / "README.md") == [EXAMPLE.read_text()]
    assert len(EXAMPLE.read_text().splitlines()) < 20


def test_page_shows_the_example_of_a_reward() -> None:
    shown, *_ = python_blocks(ROOT / "docs" / "write-a-crystal-reward.md")
    imports, classes, rest = shown.partition("class ")
    assert classes + rest in REWARD.read_text()
    assert set(imports.split("\n")) <= set(REWARD.read_text().split("\n"))


def test_limits_of_a_cell_are_those_of_the_code() -> None:
    """The table in docs/units.md, row by row."""
    section = (
        (ROOT / "docs" / "units.md").read_text().partition("## Limits that a cell must keep")[2].partition("\n## ")[0]
    )
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", section, flags=re.MULTILINE))
    numbers = {name: [float(text) for text in re.findall(r"[\d.]+", text)] for name, text in rows.items()}
    bounds = CellBounds()
    assert numbers["length"] == [bounds.min_length, bounds.max_length]
    assert numbers["angle"] == [bounds.min_angle, bounds.max_angle]
    assert numbers["volume"] == [bounds.min_volume, bounds.max_volume]
    assert numbers["overlap"] == [bounds.min_distance, bounds.min_covalent_ratio]
    assert numbers["isolated"] == [bounds.max_gap]
    assert "10⁶" in rows["exploded"]
    assert bounds.max_coordinate == 1e6


def test_example_runs(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), *SMALL], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    *_, log = [line for line in done.stdout.splitlines() if line.startswith("[")]
    assert len(ast.literal_eval(log)) == 2
    assert len(done.stdout.partition(log)[2].split()) == 10, done.stdout
    [run] = (tmp_path / "outputs" / "demo").iterdir()
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 2
    assert "_target_: <python>:oxygen_share" in (run / "config.yaml").read_text()


def marked(page: Path) -> Any:
    """A page as a parameter; one whose blocks train for more than a few seconds is slow."""
    return pytest.param(page, id=page.stem, marks=[pytest.mark.slow] if page.stem == "add-a-backbone" else [])


@pytest.mark.parametrize("page", [marked(page) for page in PAGES if python_blocks(page)])
def test_blocks_of_a_page_run_in_order(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if "data/mp_20" in page.read_text():
        mp_20_files.write_csv(tmp_path, monkeypatch)
    if page.stem == "molecules":
        write_molecules(tmp_path)
    elif page.stem == "validation":
        words = [*small_backbone.TINY, f"model.backbone={small_backbone.write(tmp_path / 'backbone')}"]
        train(load_config("demo", [*words, "save_path=outputs/validated"]), "demo")
    names: dict[str, Any] = {"__name__": page.stem}
    for number, block in enumerate(python_blocks(page)):
        exec(compile(block, f"{page.name}, block {number}", "exec"), names)
    if page.stem == "crystals":
        crystals = load_crystal_csv(tmp_path / "my.csv", tmp_path / "cache", workers=1)
        assert (crystals.ids, crystals.sizes.tolist(), crystals.failures) == (("salt",), [8], ())
    elif page.stem == "molecules":
        assert (len(names["molecules"]), len(names["stable"]), len(names["forces"])) == (2, 1, 1)
        assert names["smiles"] == ["O"]
        assert (tmp_path / "first.xyz").read_text().startswith("3\n")
    elif page.stem == "add-a-backbone":
        begun, ended = np.mean(names["rewards"][:3]), np.mean(names["rewards"][-5:])
        assert len(names["rewards"]) == 40
        assert begun < -0.3
        assert ended > begun / 2


def test_policies_to_copy_from_follow_their_prompts_to_another_device() -> None:
    """As a GPU does, torch's device `meta` refuses to compare its tensors with those of the CPU."""
    names: dict[str, Any] = {"__name__": "page"}
    exec(python_blocks(ROOT / "docs" / "add-a-backbone.md")[0], names)
    there = torch.device("meta")
    prompts = PromptPlan(SizeDistribution({3: 1, 5: 1}), groups=2, samples_per_group=2).prompts(0).to(there)
    policies = (names["Cloud"](), SubspaceGaussian(torch.zeros(4)), LearnedStdGaussian(torch.zeros(4)))
    for policy in policies:
        latents, mask = policy.to(there).prior(prompts, draw(prompts, "prior", atoms=5))
        step = policy.step(latents, mask, policy.transitions(5)[2], prompts)
        noised, _ = policy.forward_noise(latents, mask, torch.ones(4, device=there), latents)
        found = policy.read(policy.estimate(noised, policy.transitions(5)[2], step.prediction), mask, prompts)
        assert found.positions.device == there


def write_molecules(folder: Path) -> None:
    """What `atomrl sample` and an evaluation leave: water, and two hydrogens that no force field was asked about."""
    positions = torch.tensor([[[0.0, 0.0, 0.1], [0.0, 0.76, -0.5], [0.0, -0.76, -0.5]]] * 2, dtype=torch.float64)
    numbers, mask = torch.tensor([[8, 1, 1], [1, 1, 0]]), torch.tensor([[True] * 3, [True, True, False]])
    records = [RdkitRecord(True, "[H]O[H]", 1, 0, None), RdkitRecord.invalid("valence")]
    results = [Evaluation(-138.0, np.zeros((3, 3)), None), Evaluation.failed(2, "scf")]
    samples = Annotated(Structures(numbers, positions, mask), ["00000", "00001"], records, results)
    write_sdf(folder / "molecules.sdf", samples)
    write_extxyz(folder / "molecules.extxyz", samples)


@pytest.mark.parametrize("page", WITH_LINKS, ids=lambda page: f"{page.parent.name}-{page.stem}")
def test_links_lead_somewhere(page: Path) -> None:
    """Files exist, and a page that is named with an anchor has that heading."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        found = page.parent / path if path else page
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), target


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, made as GitHub makes them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    plain = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings]
    names = [re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain]
    again = [names[:place].count(name) for place, name in enumerate(names)]
    return {f"{name}-{count}" if count else name for name, count in zip(names, again, strict=True)}


@pytest.mark.parametrize(
    "page",
    [page for page in WITH_LINKS if page.stem != "CHANGELOG"],
    ids=lambda page: f"{page.parent.name}-{page.stem}",
)
def test_code_that_a_page_names_is_there(page: Path) -> None:
    """Files `folder/file.py`, and dotted names `atomrl...`; the changelog also names what was."""
    text = page.read_text()
    files = re.findall(r"`((?:\w+/)+\w+\.py)`", text)
    assert [file for file in files if not [*ROOT.glob(file), *ROOT.glob(f"src/*/{file}")]] == []
    assert [name for name in re.findall(r"(?<![\w./-])atomrl(?:\.\w+)+", text) if not is_in_the_package(name)] == []


def is_in_the_package(dotted: str) -> bool:
    """Whether there is a module of this name, or one whose text holds the names that follow."""
    place, names = ROOT / "src" / "atomrl", dotted.split(".")[1:]
    while names and (place / names[0]).is_dir():
        place /= names.pop(0)
    file = place / f"{names[0] if names else '__init__'}.py"
    module, inside = (file, names[1:]) if file.is_file() else (place / "__init__.py", names)
    return module.is_file() and all(re.search(rf"\b{name}\b", module.read_text()) for name in inside)


def test_every_page_is_listed() -> None:
    """The README leads to each page of docs/, and to the result pages by way of docs/results.md."""
    readme, results = ((ROOT / name).read_text() for name in ("README.md", "docs/results.md"))
    assert [page.name for page in PAGES if f"(docs/{page.name})" not in readme] == []
    reports = sorted((ROOT / "docs" / "results").glob("*.md"))
    assert [page.name for page in reports if f"(results/{page.name})" not in results] == []


def test_citation_is_of_this_version() -> None:
    """CITATION.cff agrees with pyproject.toml, and has what the format demands."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "authors"} <= citation.keys()
    assert (citation["title"], citation["version"]) == (project["name"], project["version"])
    assert citation["license"] == project["license"]
    assert (citation["type"], citation["abstract"]) == ("software", project["description"] + ".")
