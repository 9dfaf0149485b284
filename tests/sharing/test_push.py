"""`atomrl push`, against a stand-in for the hub: what is sent, what is shown, what is refused."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from hub_stand_in import TOKEN, hub, logged_in  # noqa: F401  # before anything imports huggingface_hub

from atomrl.cli import main
from atomrl.config import load_config, read_config
from atomrl.training.run import train

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
from test_train_crystals import TINY, backbone

KEPT = Path(__file__).parents[1] / "data" / "run_of_0.1.0"
FILES = {"README.md", "config.yaml", "model.json", "model.safetensors"}
MIT = ["--licence", "mit"]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of two iterations on molecules, which was not evaluated."""
    shutil.copytree(KEPT, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "run"


def said(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    capsys.readouterr()
    main([str(word) for word in words])
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main([str(word) for word in words])
    assert caught.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    return line


def front(card: str) -> dict:
    assert card.startswith("---\n")
    return yaml.safe_load(card.split("---\n")[1])


def test_a_folder_without_a_network(run: Path, tmp_path: Path, hub, capsys) -> None:  # noqa: F811
    """It samples what the run samples, and its configuration is the run's."""
    shown = said(capsys, "push", run, "me/mine", *MIT, "--output", "shared")
    assert "shared; nothing was sent" in shown
    assert "no evaluation was made" in shown
    assert hub.asked == []
    folder = tmp_path / "shared"
    assert {path.name for path in folder.iterdir()} == FILES
    config = read_config(folder / "config.yaml")
    assert (config.save_path, config.train, config.seed) == (None, read_config(run / "config.yaml").train, 0)
    draw = ["-n", "2", "--time-step", "5", "--output"]
    main(["sample", "--backbone", str(run), *draw, "a.extxyz"])
    main(["sample", "--backbone", "shared", *draw, "b.extxyz"])
    assert Path("a.extxyz").read_text() == Path("b.extxyz").read_text()


def test_the_card(run: Path, tmp_path: Path, capsys) -> None:
    shown = said(capsys, "push", run, "me/mine", *MIT, "--dry-run", "--output", "both")
    assert "-> both; nothing was sent" in shown
    card = shown[shown.index("---\n") :]
    assert card == (tmp_path / "both" / "README.md").read_text("utf-8")
    assert front(card) == {
        "license": "mit",
        "library_name": "atomrl",
        "tags": ["diffusion", "molecules", "chemistry", "reinforcement-learning"],
    }
    for text in (
        "# mine\n",
        "atomrl sample --backbone hub:me/mine -n 10",
        "| started from | `backbone` |",
        "| iterations | 2, 12 samples in all |",
        "of the training 0, one run",
        "No evaluation was made",
        "The reward was the dummy of smoke tests",
    ):
        assert text in card, text
    assert str(tmp_path) not in card


def test_a_licence_is_asked_for_unless_the_start_has_one(run: Path, capsys) -> None:
    assert "started from backbone: add --licence" in refused(capsys, "push", run, "me/mine", "--dry-run")
    described = run / "config.yaml"
    described.write_text(described.read_text().replace("backbone: backbone", "backbone: edm_qm9_small"))
    shown = said(capsys, "push", run, "me/mine", "--dry-run")
    assert "license: apache-2.0" in shown
    assert "of `edm_qm9_small`: QM9, 100,000 training molecules" in shown


def test_push_and_push_again(run: Path, logged_in, capsys) -> None:  # noqa: F811
    """New; the same again; changed, which must be said."""
    shown = said(capsys, "push", run, "me/mine", *MIT, "--private")
    repository = logged_in.repositories["me/mine"]
    first = repository.names["main"]
    assert repository.private
    assert repository.commits[first].keys() == FILES | {".gitattributes"}
    assert f"pushed to hub:me/mine, commit {first}: atomrl sample --backbone hub:me/mine@{first}" in shown
    assert "hub:me/mine is new:\n  new     README.md" in shown
    assert f"has all of it already, at {first}: nothing was sent" in said(capsys, "push", run, "me/mine", *MIT)
    other = ["push", run, "me/mine", "--licence", "apache-2.0"]
    assert "has other versions of README.md: nothing was sent; --replace" in refused(capsys, *other)
    assert repository.names["main"] == first
    shown = said(capsys, *other, "--replace", "--message", "another licence")
    assert "  changed README.md" in shown
    assert "  same    model.safetensors" in shown
    assert "  stays   .gitattributes" in shown
    second = repository.names["main"]
    assert repository.messages[second] == "another licence"
    assert b"license: mit" in repository.commits[first]["README.md"]
    assert b"license: apache-2.0" in repository.commits[second]["README.md"]


def test_what_describes_other_weights_goes(run: Path, logged_in, capsys) -> None:  # noqa: F811
    """The table of an earlier push must not stand beside weights that it did not judge."""
    main(["push", str(run), "me/mine", *MIT])
    repository = logged_in.repositories["me/mine"]
    repository.commit({"evaluation.json": b"{}", "figure.png": b"png"})
    assert "has other versions of evaluation.json" in refused(capsys, "push", run, "me/mine", *MIT)
    assert "  removed evaluation.json" in said(capsys, "push", run, "me/mine", *MIT, "--replace")
    assert repository.commits[repository.names["main"]].keys() == FILES | {".gitattributes", "figure.png"}


def test_what_is_refused(run: Path, hub, monkeypatch, capsys) -> None:  # noqa: F811
    push = ["push", run, "me/mine", *MIT]
    assert "takes a token with write permission" in refused(capsys, *push)
    assert "a push makes a commit of its own" in refused(capsys, "push", run, "me/mine@v1", *MIT)
    assert "hub is hub:user/name" in refused(capsys, "push", run, "mine", *MIT)
    assert "is on the hub already" in refused(capsys, "push", "hub:me/mine", "me/other", *MIT)
    assert "nowhere" in refused(capsys, "push", "nowhere", "me/mine", "--dry-run")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "the token is wrong or no longer valid" in refused(capsys, *push)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert "the token does not allow this" in refused(capsys, "push", run, "somebody/mine", *MIT)
    assert "me/mine" not in hub.repositories
    main([str(word) for word in push])
    assert "is there and public, --private is for a new" in refused(capsys, *push, "--private")
    hub.repositories["me/mine"].commit({"reward.py": b"print()"})
    assert "holds reward.py: pickles or code" in refused(capsys, *push)
    assert "the hub refuses" in refused(capsys, "push", run, "me/other", "--licence", "openrail")


def test_a_commit_in_between_is_not_written_over(run: Path, logged_in, monkeypatch, capsys) -> None:  # noqa: F811
    from atomrl.sharing import command

    main(["push", str(run), "me/mine", *MIT])
    repository, compare = logged_in.repositories["me/mine"], command.difference

    def late(*words):
        found = compare(*words)
        repository.commit({"figure.png": b"png"})
        return found

    monkeypatch.setattr(command, "difference", late)
    other = ["push", run, "me/mine", "--licence", "apache-2.0", "--replace"]
    assert "answered 412" in refused(capsys, *other)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run, and an evaluation of it."""
    folder = tmp_path_factory.mktemp("evaluated")
    shutil.copytree(KEPT, folder, dirs_exist_ok=True)
    options = ["-n", "2", "--time-step", "5", "reward.workers=1", "--output", str(folder / "run" / "evaluation")]
    main(["evaluate", "--base", str(folder / "backbone"), "--trained", str(folder / "run"), *options])
    return folder


def test_the_evaluation_of_these_weights_comes_along(evaluated: Path, tmp_path: Path, capsys) -> None:
    said(capsys, "push", evaluated / "run", "me/mine", *MIT, "--output", tmp_path / "shared")
    texts = {path.name: path.read_text() for path in (tmp_path / "shared").iterdir() if path.suffix != ".safetensors"}
    assert texts.keys() == {*FILES, "evaluation.json"} - {"model.safetensors"}
    assert "| molecule stability ↑ |" in texts["README.md"]
    assert "of the evaluation's samples 1000003" in texts["README.md"]
    assert "by GFN2-xTB; no experiment" in texts["README.md"]
    assert "atomrl evaluate --base backbone --trained run" in texts["README.md"]
    assert json.loads(texts["evaluation.json"])["columns"]["trained"]["command"].endswith("--output evaluation")
    assert not [name for name, text in texts.items() if str(evaluated) in text]


def test_an_evaluation_of_other_weights_does_not(evaluated: Path, tmp_path: Path, capsys) -> None:
    """The model that it compares with is among those that it judged; a third one is not."""
    table = evaluated / "run" / "evaluation"
    push = ["push", "edm_qm9_small", "me/mine", "--licence", "apache-2.0", "--dry-run"]
    assert "judged other weights than these" in refused(capsys, *push, "--evaluation", table)
    main([str(word) for word in [*push[:1], evaluated / "backbone", *push[2:], "--evaluation", table]])
    old = tmp_path / "old"
    shutil.copytree(table, old)
    content = json.loads((old / "evaluation.json").read_text())
    for column in content["columns"].values():
        del column["model"]
    (old / "evaluation.json").write_text(json.dumps(content))
    assert "does not say which weights it judged" in refused(capsys, *push, "--evaluation", old)
    (old / "evaluation.json").write_text("{")
    assert "is damaged" in refused(capsys, *push, "--evaluation", old)
    assert "holds no evaluation" in refused(capsys, *push, "--evaluation", tmp_path / "none")


def test_crystals(tmp_path: Path, logged_in, monkeypatch, capsys) -> None:  # noqa: F811
    """A run on crystals, pushed; its weights and its sampler come back by the hub's name."""
    monkeypatch.chdir(tmp_path)
    words = ["reward.type=dummy", "reward.components=[]", "model.sampler=ddim", "save_path=run", "reward.workers=1"]
    words += [f"model.backbone={backbone(tmp_path / 'backbone')}", "dataloader.epoches=1", "train.num_inner_batch=null"]
    train(load_config("demo", ["experiment=prototypes/rl_dng", *TINY, *words]), "crystals")
    shown = said(capsys, "push", tmp_path / "run", "me/crystals", *MIT)
    assert "pushed to hub:me/crystals" in shown
    repository = logged_in.repositories["me/crystals"]
    files = repository.commits[repository.names["main"]]
    assert front(files["README.md"].decode())["tags"][1:3] == ["crystals", "materials-science"]
    assert b"samples.extxyz" in files["README.md"]
    assert json.loads(files["model.json"])["sampling"]["sampler"] == "ddim"
    assert str(tmp_path).encode() not in b"".join(files[name] for name in FILES - {"model.safetensors"})
    draw = ["-n", "2", "--time-step", "5", "--output"]
    main(["sample", "--backbone", "run", *draw, "a.extxyz"])
    main(["sample", "--backbone", "hub:me/crystals", *draw, "b.extxyz"])
    assert Path("a.extxyz").read_text() == Path("b.extxyz").read_text()
