"""Every command that README.md and the pages of docs/ show exists and runs: smaller counts, nothing else changed.

Commands of one page run in its order and in one folder, since later ones build on earlier ones. A YAML block that
begins with `# path` is written there first.
"""

import json
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import hub_stand_in  # before anything imports huggingface_hub
import mp_20_files
import own_molecules
import perov_5_files
import published_crystals
import published_experiments
import pytest

from atomrl.cli import _COMMANDS, main
from atomrl.config import load_config
from atomrl.data.qm9 import MoleculeSet
from atomrl.pretraining import edm_run as pretrain_run
from atomrl.pretraining import regressor_run
from atomrl.rewards.build import build_components
from studies.__main__ import main as results_main
from studies.chgnet_agreement import main as chgnet_agreement
from studies.predicted_structures import main as predicted_structures
from studies.tradeoff import main as tradeoff
from tools.prototypes import candidates
from tools.prototypes.candidate import REFERENCE, Candidate
from tools.prototypes.recipes import MOLECULE
from tools.prototypes.references import BCC, ROCK_SALT, textbook_candidate

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
from test_train_crystals import backbone

hub, logged_in = hub_stand_in.hub, hub_stand_in.logged_in
ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PACKAGE = ROOT / "src" / "atomrl"
SMOKE = (
    "python run_elign.py --config-name fed_grpo_config reward.type=dummy wandb.enabled=false dataloader.epoches=2 "
    "dataloader.sample_group_size=2 dataloader.each_prompt_sample=4 model.time_step=50"
)

# What is appended to a command: smaller counts only.
TRAIN = [
    "dataloader.sample_group_size=2",
    "dataloader.each_prompt_sample=2",
    "model.time_step=20",  # shorter walks make molecules that no force field can score, and then there is no best
]
TABLE = ["evaluation.samples=4", "evaluation.time_step=20"]
CRYSTALS = [
    "reward.workers=1",
    "threads=1",
    "train.exploded_above=1e6",  # the denoiser that a page trained for two steps does not hold its latents together
]
SCRIPTS = {
    "eval_elign_rollout.py": ["--num-molecules", "4", "--time-step", "5"],
    "compute_elign_metrics.py": [],
}
OFFLINE = "WANDB_MODE=offline"
"""What may stand before a command."""
AS_THEY_ARE = {"list", "keys", "doctor", "import", "push", "report"}
SAMPLE = ["--num-molecules", "4", "--time-step", "5"]
STUDY = ["--seeds", "0", "--docs", "report", *TRAIN, "threads=1", "dataloader.epoches=1"]
PREDICTION = ["-n", "2", "--limit", "3", "--tries", "1", "--time-step", "5"]
TRADEOFF = ["--best-of", "2", "--samples", "4", "--time-step", "20", "--y", "atom_stability"]
PRETRAIN = ["train.steps=2", "train.batch_size=4", "val_batches=1"]
PRETRAIN_CRYSTALS = {
    "vae": ["model.width=32", "model.heads=2", "model.feedforward=64", "model.layers=1", "match_structures=2"],
    "ldm": ["model.hidden=32", "model.depth=1", "model.heads=2"],
    "predictor": [],
}


def blocks(page: Path, language: str) -> list[str]:
    """The blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[str]:
    """The shell commands of a page, one per line of its bash blocks."""
    lines = [line for block in blocks(page, "bash") for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line.strip()]


def files(page: Path) -> dict[Path, str]:
    """The YAML files that a page shows, by the path in their first line."""
    return {Path(block.splitlines()[0].removeprefix("# ")): block for block in blocks(page, "yaml")}


def smaller(words: list[str]) -> list[str]:
    """Arguments of `atomrl` for a short run."""
    command, *rest = words
    if command in AS_THEY_ARE or command.startswith("check-") or "--print-config" in rest:
        return words
    if command in {"train", "resume"}:
        return [*words, *smaller_run(command, rest)]
    if "--structures" in rest:
        return [*words, *fewer_relaxed(rest)]
    if command in {"sample", "evaluate"}:
        # A walk of five steps ends in nothing that is stable, and then there is nothing to write.
        return [*words, *fewer_relaxed(rest), *SAMPLE, *(["--time-step", "25"] if "--reject" in rest else [])]
    if command == "pretrain":
        crystals = ["card_structures=2", "threads=1"] if rest[0] in PRETRAIN_CRYSTALS else []
        given = any(word.startswith("backbone=") for word in rest)
        return [*words, *PRETRAIN, *crystals, *([] if given else PRETRAIN_CRYSTALS.get(rest[0], []))]
    if command == "data":
        return [*words, "--workers", "1"] if "--workers" in words else words
    raise AssertionError(f"no short form of atomrl {command}: add one here")


def smaller_run(command: str, words: list[str]) -> list[str]:
    """Overrides for a short training, or for a short continuation of one."""
    if command == "train":
        return [*smaller_training(words), f"dataloader.epoches={2 if 'resume=true' in words else 1}"]
    asked = any(word.startswith("evaluation.") for word in words)
    return ["dataloader.epoches=2", *(TABLE if asked else [])]


def smaller_training(words: list[str]) -> list[str]:
    """Overrides for a short training; crystals, whose judges start slowly, are judged only where a page asks for it."""
    validated = [
        f"{key}={count}"
        for key, count in (("validation.every", 1), ("validation.groups", 2))
        if any(word.startswith(f"{key}=") for word in words)
    ]
    if not any(word.startswith(("experiment=", "--config-dir")) for word in words):
        return [*TRAIN, *TABLE, *validated]
    asked = [word for word in words if word.startswith("evaluation.")]
    table = TABLE if asked else ["evaluation.samples=0"]
    return [*TRAIN, *CRYSTALS, *table, *fewer_relaxed(words), *validated]


def fewer_relaxed(words: list[str]) -> list[str]:
    """Overrides for a table of relaxed samples, where one is asked for: a relaxation takes seconds."""
    return ["evaluation.relaxed=1"] if any(word.startswith("evaluation.relaxed=") for word in words) else []


def smaller_study(words: list[str]) -> list[str]:
    """Arguments of `python -m results` for a short run."""
    own = TABLE if "demo" in words else ["--samples", "4", "--time-step", "5", "--best-of", "2"]
    return [*words, *STUDY, *own]


def check_make(words: list[str]) -> None:
    """Targets and variables that a `make` command names are in the Makefile."""
    text = (ROOT / "Makefile").read_text()
    variables = {word.partition("=")[0] for word in words if "=" in word}
    assert variables <= set(re.findall(r"^([A-Z]+) \?=", text, flags=re.MULTILINE)), words
    targets = {word for word in words if "=" not in word}
    assert targets <= set(re.findall(r"^([a-z-]+):", text, flags=re.MULTILINE)), words


def check_pip(words: list[str]) -> None:
    """The extras that a `pip install` names are the package's; nothing is installed."""
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = re.findall(r"\[([\w,]+)\]", words[-1])
    assert words[0] == "install"
    assert named, words
    assert set(",".join(named).split(",")) <= known.keys(), words
    assert (ROOT / words[words.index("-c") + 1]).is_file(), words


def run_several(words: list[str]) -> None:
    """Run a training that torchrun starts, in its own processes."""
    number = next(place for place, word in enumerate(words) if word in {"run_elign.py", "train"})
    how = [str(ROOT / word) if word == "run_elign.py" else word for word in words[: number + 1]]
    arguments = smaller(["train", *words[number + 1 :]])[1:]
    subprocess.run([sys.executable, "-m", "torch.distributed.run", *how, *arguments], check=True)


def run(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run one documented command in this process."""
    program, *words = shlex.split(command)
    if program == OFFLINE:
        monkeypatch.setenv(*OFFLINE.split("="))
        program, *words = words
    if program == "make":
        check_make(words)
    elif program == "pip":
        check_pip(words)
    elif program == "torchrun":
        run_several(words)
    elif program == "tensorboard":  # a server; tests/training/test_dashboards.py reads the files as it does
        assert list((Path(words[1]) / "tensorboard").glob("events.*")), command
    elif program == "sbatch":
        assert Path(words[0]).is_file(), command  # tests/training/test_several_processes.py runs it
    elif program == "atomrl":
        monkeypatch.setattr(sys, "argv", [program, *smaller(words)])
        main()
    elif program == "python":
        run_python(command, words, monkeypatch)
    else:
        raise AssertionError(f"nothing here knows how to test {command!r}")


def run_python(command: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a script or a module of the repository."""
    if words[:2] == ["-m", "studies.chgnet_agreement"]:
        chgnet_agreement(words[2:])
    elif words[:2] == ["-m", "studies.predicted_structures"]:
        predicted_structures([*words[2:], *PREDICTION])
    elif words[:2] == ["-m", "studies.tradeoff"]:
        tradeoff([*words[2:], *TRADEOFF])
    elif words[:2] == ["-m", "results"]:
        results_main(smaller_study(words[2:]))
    elif words == ["examples/reward_hacks.py"]:
        assert (ROOT / words[0]).is_file(), command  # tests/rewards/test_hacked_runs.py runs it
    elif words[0] in {"run_elign.py", "src/train_rl.py"}:
        _, *arguments = smaller(["train", *words[1:]])
        monkeypatch.setattr(sys, "argv", [words[0], *arguments])
        runpy.run_path(str(ROOT / words[0]), run_name="__main__")
    elif words[0] in SCRIPTS:
        monkeypatch.setattr(sys, "argv", [*words, *SCRIPTS[words[0]]])
        runpy.run_path(str(ROOT / words[0]), run_name="__main__")
    else:
        raise AssertionError(f"nothing here knows how to test {command!r}")


def run_or_name_what_is_missing(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Run a command; one that needs an extra that is not installed, or a set that no test has, must say so."""
    missing = None
    if re.match("(atomrl|python) .*sevennet", command) and find_spec("sevenn") is None:
        missing = "atomrl[sevennet]"
    elif "wandb.enabled=true" in command and find_spec("wandb") is None:
        missing = "atomrl[wandb]"
    elif "lora.rank=" in command and find_spec("peft") is None:
        missing = "atomrl[lora]"
    elif found := re.match("(atomrl|python) .*(alex_mp_20(_bandgap)?)", command):
        missing = f"/{found[2]}"
    if missing is None:
        run(command, monkeypatch)
        return
    with pytest.raises(SystemExit) as stopped:
        run(command, monkeypatch)
    assert stopped.value.code == 2, command
    assert missing in capsys.readouterr().err, command


@pytest.fixture
def few_molecules(qm9_set: MoleculeSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """QM9 is 300 molecules."""
    parts = ("train", "first", "second", "validation", "test")
    for module in (pretrain_run, regressor_run):
        monkeypatch.setattr(module, "load_qm9", lambda: qm9_set)
        monkeypatch.setattr(module, "split", lambda molecules: dict.fromkeys(parts, molecules))


@pytest.fixture
def few_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    """A crystal set is built from sodium, chlorine and rock salt."""
    elements = [(BCC, {"W": "Na"}), (f"{MOLECULE}Cl2", {"Cl": "Cl"})]
    few = [Candidate.make(REFERENCE, *element) for element in elements]
    few.append(textbook_candidate(ROCK_SALT, "NaCl", "NaCl"))
    monkeypatch.setattr(candidates, "candidates", lambda seed, limit: few)


@pytest.mark.timeout(1200)  # judges of crystals start slowly, and one page asks for them several times
@pytest.mark.usefixtures("few_molecules", "few_candidates")
@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=lambda page: page.stem)
def test_commands_of_a_page(
    page: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "examples", "examples")
    for path, text in files(page).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    if "data/mp_20" in page.read_text():
        mp_20_files.write_csv(tmp_path, monkeypatch)
        mp_20_files.write_hull(tmp_path)
    if page.stem == "sharing":
        request.getfixturevalue("logged_in")
    if page.stem == "property-as-the-goal":
        backbone(tmp_path / "checkpoints" / "mp_20")
        perov_5_files.write_csv(tmp_path / "perov_5")
    if "ckpts/" in page.read_text():
        published_crystals.write_downloads(tmp_path / "ckpts")
        published_experiments.write(tmp_path / "published" / "configs")
        shutil.copytree(ROOT / "configs", "configs")
    if "data=my.sdf" in page.read_text():
        own_molecules.write_sdf(tmp_path / "my.sdf", own_molecules.QM9_LIKE)
    for command in commands(page):
        run_or_name_what_is_missing(command, monkeypatch, capsys)
    if page.stem == "README":
        check_run_directory(page.read_text(), tmp_path / "outputs" / "my_run")
    elif page.stem == "molecules":
        runs = ("my_molecules", "my_policy_gradient")
        check_log(page.read_text(), [tmp_path / "outputs" / run / "metrics.jsonl" for run in runs])


def check_run_directory(readme: str, folder: Path) -> None:
    """The README's table of a run directory against a run that was stopped and continued."""
    section = readme.partition("## What a run leaves behind")[2].partition("\n## ")[0]
    listed = set(re.findall(r"`([\w./]+)`", "".join(re.findall(r"^\|([^|]*)\|", section, flags=re.MULTILINE))))
    rare = {"csv", "nonfinite_loss.pt", "traceback.txt"}  # an option; only after a failure
    listed = {name.rstrip("/") for name in listed} - rare
    assert listed == {path.name for path in folder.iterdir()}
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 2


def check_log(text: str, logs: list[Path]) -> None:
    """The table of a log's names against runs: all that these have, and no more but what only others have."""
    section = text.partition("## What a run leaves behind")[2].partition("\n## ")[0]
    named = re.findall(r"`([^`]+)`", "".join(re.findall(r"^\|([^|]*)\|", section, flags=re.MULTILINE)))
    patterns = {name: re.compile(re.sub(r"<\w+>", r"\\w+", name)) for name in named}
    found = {name for log in logs for line in log.read_text().splitlines() for name in json.loads(line)}
    assert not [name for name in found if not any(pattern.fullmatch(name) for pattern in patterns.values())]
    absent = {name for name, pattern in patterns.items() if not any(pattern.fullmatch(other) for other in found)}
    # Only if some did; of `grpo`; of shaped rewards; of other elements than QM9's; of a property by xTB; of the filter.
    optional = {"failed_<reason>", "no_bond_entry", "k3", "entropy", "potentials", "failed_potentials"}
    optional |= {"homo_lumo_gap", "dipole_moment", "bounded"}
    assert absent <= {*optional, "filter_ratio", "novelty_penalty_ratio"}


@pytest.mark.parametrize("command", ["python -m results", "python -m results demo --jobs 2"])
def test_short_studies_are_understood(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No page shows a study in a block so far; their short forms must be ready. tests/results runs one in earnest."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("studies.__main__.Queue.run", lambda queue: None)
    with pytest.raises(SystemExit):
        run(command, monkeypatch)
    assert (
        "seed-0/config.yaml: no such file; run the queue" in capsys.readouterr().err
    )  # there is nothing to report yet


def test_smoke_command_is_documented() -> None:
    assert SMOKE in commands(ROOT / "README.md")


@pytest.mark.parametrize("page", [page for page in PAGES if files(page)], ids=lambda page: page.stem)
def test_yaml_of_a_page_is_an_experiment(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every key is known, and the components can be made."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "examples", "examples")
    for path, text in files(page).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        config = load_config(path.stem, folder=path.parent)
        assert build_components(config.reward.components)


def test_commands_outside_blocks_exist() -> None:
    """Inline mentions: `atomrl ...`, `make ...` and `experiment=...` in running text."""
    for page in PAGES:
        text = page.read_text()
        for words in re.findall(r"`make ([^`]+)`", text):
            check_make(shlex.split(words))
        assert set(re.findall(r"`atomrl ([a-z][a-z-]*)", text)) <= _COMMANDS.keys(), page.name
        for name in re.findall(r"experiment=([\w/]+)", text):
            assert (PACKAGE / "conf" / "experiment" / f"{name}.yaml").is_file(), f"{page.name}: {name}"


def test_numbers_are_filled_in() -> None:
    """No page has a mark where a measurement should stand."""
    assert not [page.name for page in PAGES if "TO MEASURE" in page.read_text()]
