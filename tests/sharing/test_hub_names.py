"""`hub:user/name` where a backbone is named, against a stand-in for the hub; its cache without a network; refusals."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hub_stand_in import TOKEN, hub, logged_in  # noqa: F401  # before anything imports huggingface_hub

from atomrl.checkpoints.hub import hub_name, pins
from atomrl.checkpoints.named import named_model, pinned
from atomrl.cli import main
from atomrl.config import load_config, read_config
from atomrl.training.rl_module import RLModule
from atomrl.training.run import train
from atomrl.util.errors import UserError

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
from small_backbone import TINY, write

KEPT = Path(__file__).parents[1] / "data" / "run_of_0.1.0"
DRAW = ["-n", "2", "--time-step", "5", "--output"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def small(hub, here: Path):  # noqa: F811
    """`me/small`, a backbone of molecules."""
    return hub.add("me/small", write(here / "backbone"))


def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def refusal(where: str) -> str:
    with pytest.raises(UserError) as caught:
        named_model(where)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_names() -> None:
    assert str(hub_name("hub:me/small")) == str(hub_name("me/small")) == "hub:me/small"
    assert hub_name("hub:me/small@refs/pr/1").revision == "refs/pr/1"
    for word in ("hub:small", "hub:me/small@", "hub:a/b/c", "hub:", "hub:me/sm all"):
        with pytest.raises(UserError, match=r"is hub:user/name, or hub:user/name@revision"):
            hub_name(word)


def test_what_a_commit_pins() -> None:
    pinned = f"hub:me/small@{'a' * 40}"
    assert pins(pinned, "hub:me/small")
    assert pins(pinned, "hub:me/small@v1")
    for other in (f"hub:me/small@{'b' * 40}", "hub:me/large", "me/small", None):
        assert not pins(pinned, other)


def test_a_backbone_of_the_hub_samples_like_its_folder(small, hub, here: Path, capsys) -> None:  # noqa: F811
    """And the command says which commit it was; from the cache the same, without a network."""
    main(["sample", "--backbone", "backbone", *DRAW, "a.extxyz"])
    capsys.readouterr()
    main(["sample", "--backbone", "hub:me/small", *DRAW, "b.extxyz"])
    assert f"hub:me/small@{small.names['main']}" in capsys.readouterr().out
    hub.broken = True
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    words = ["-m", "atomrl", "sample", "--backbone", "hub:me/small", *DRAW, "c.extxyz"]
    subprocess.run([sys.executable, *words], env=environment, check=True, timeout=240)
    texts = [Path(f"{name}.extxyz").read_text() for name in "abc"]
    assert texts[0] == texts[1] == texts[2]


def test_revisions(small, here: Path) -> None:
    """A branch or tag is the commit that it names; what is newest moves, what is pinned does not."""
    first = small.names["v1"] = small.names["main"]
    found = named_model("hub:me/small@v1")
    assert found.origin == f"hub:me/small@{first}" == pinned("hub:me/small")
    card = json.loads((here / "backbone" / "model.json").read_text())
    second = small.commit({"model.json": json.dumps({**card, "sizes": {"4": 1}}).encode()})
    assert pinned("hub:me/small") == f"hub:me/small@{second}"
    assert pinned("hub:me/small@v1") == pinned(f"hub:me/small@{first}") == f"hub:me/small@{first}"
    assert '"4": 1\n' not in (found.weights / "model.json").read_text()
    assert pinned("edm_qm9_small") == "edm_qm9_small"
    assert "the repository has no revision v2" in refusal("hub:me/small@v2")


def test_a_commit_in_the_cache_asks_nobody(small, hub) -> None:  # noqa: F811
    name = pinned("hub:me/small")
    asked, hub.broken = len(hub.asked), True
    assert named_model(name).weights.is_dir()
    assert len(hub.asked) == asked


def test_the_cache_without_a_network(small, monkeypatch: pytest.MonkeyPatch) -> None:
    offline(monkeypatch)
    said = refusal("hub:me/small")
    assert "is not in the cache" in said
    assert "HF_HUB_OFFLINE=1" in said


def test_a_run_records_the_commit(small, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In its config.yaml, which is what it is continued and judged by; its checkpoint names it too."""
    first = small.names["main"]
    words = ["model.backbone=hub:me/small", "save_path=run", "dataloader.epoches=1"]
    train(load_config("demo", [*TINY, *words]), "demo")
    assert read_config(here / "run" / "config.yaml").model.backbone == f"hub:me/small@{first}"
    card = json.loads((here / "backbone" / "model.json").read_text())
    small.commit({"model.json": json.dumps({**card, "sizes": {"4": 1}}).encode()})
    with pytest.raises(UserError, match=rf"the run in run began with model.backbone=hub:me/small@{first}"):
        train(load_config("demo", [*TINY, *words[:2], "dataloader.epoches=2", "resume=true"]), "demo")
    main(["resume", "run", "dataloader.epoches=2"])
    assert read_config(here / "run" / "config.yaml").model.backbone == f"hub:me/small@{first}"


def test_an_evaluation_records_the_commit(logged_in, here: Path) -> None:  # noqa: F811
    """Both sides from the hub; what was rewarded and how it is judged says the config.yaml that was pushed with it."""
    shutil.copytree(KEPT, here, dirs_exist_ok=True)
    for model, name in (("run", "me/tuned"), ("backbone", "me/base")):
        main(["push", model, name, "--licence", "mit"])
    words = ["--base", "hub:me/base", "--trained", "hub:me/tuned", "-n", "2", "--time-step", "5", "reward.workers=1"]
    main(["evaluate", *words, "--output", "out"])
    columns = json.loads(Path("out/evaluation.json").read_text())["columns"]
    for column, name in (("base", "me/base"), ("trained", "me/tuned")):
        assert columns[column]["model"]["origin"] == f"hub:{name}@{logged_in.repositories[name].names['main']}"


def test_code_that_a_configuration_names(logged_in, here: Path, capsys) -> None:  # noqa: F811
    """The weights need none of it; a command that would run it asks for --trust-code, as of a run directory."""
    shutil.copytree(KEPT, here, dirs_exist_ok=True)
    Path("mine.py").write_text("raise SystemExit('ran')\n")
    described = here / "run" / "config.yaml"
    text = described.read_text().replace("  type: dummy", "  components: [{_target_: 'mine.py:mine'}]")
    described.write_text(re.sub(r"_adv_weight: [\d.]+", "_adv_weight: 0.0", text))
    main(["push", "run", "me/tuned", "--licence", "mit"])
    card = logged_in.repositories["me/tuned"].commits[logged_in.repositories["me/tuned"].names["main"]]["README.md"]
    assert b"code that is neither atomrl's nor in this repository: `mine.py:mine`" in card
    main(["sample", "--backbone", "hub:me/tuned", *DRAW, "a.extxyz"])
    with pytest.raises(SystemExit) as caught:
        main(["evaluate", "--base", "backbone", "--trained", "hub:me/tuned", "--output", "out"])
    assert caught.value.code == 2
    assert "mine.py:mine; add --trust-code" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["evaluate", "--base", "backbone", "--trained", "hub:me/tuned", "--output", "out", "--trust-code"])
    assert "mine.py calls sys.exit('ran')" in capsys.readouterr().err


def test_pickles_and_code_are_refused(small, hub) -> None:  # noqa: F811
    """By the list of files, before any of them is fetched."""
    clean = dict(small.commits[small.names["main"]])
    for file in ("pytorch_model.bin", "checkpoint_latest.pth", "deep/args.pickle", "modeling.py", "W.NPY"):
        small.names["main"] = small.commit({**clean, file: b"x"})
        hub.asked.clear()
        said = refusal("hub:me/small")
        assert f"holds {file}: pickles or code" in said
        assert not [line for line in hub.asked if "resolve" in line]
        small.commit({file: None})
    assert named_model("hub:me/small").weights.is_dir()


def test_a_cache_that_another_program_filled_is_looked_at_too(small) -> None:
    folder = named_model("hub:me/small").weights
    (folder / "pytorch_model.bin").touch()
    assert "holds pytorch_model.bin" in refusal(pinned_now(small))


def pinned_now(repository) -> str:
    return f"hub:me/small@{repository.names['main']}"


def test_refusals(small, hub, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    assert "has no such model, or it is private: check the name" in refusal("hub:me/nothing")
    small.private = True
    assert "log in with `hf auth login`, or give a token in HF_TOKEN" in refusal("hub:me/small")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert named_model("hub:me/small").weights.is_dir()
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "the token is wrong or no longer valid" in refusal("hub:me/small")
    monkeypatch.delenv("HF_TOKEN")
    small.private, small.gated = False, True
    small.commit({"other.txt": b"x", "model.json": b"{}"})
    assert f"accept its terms at {hub.endpoint}/me/small, then log in" in refusal("hub:me/small")
    hub.repositories["me/else"] = type(small)()
    hub.repositories["me/else"].commit({"config.json": b"{}"})
    assert "is not a model of atomrl: it lacks model.safetensors and model.json" in refusal("hub:me/else")
    hub.broken = True
    assert "answered 503" in refusal("hub:me/small")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    said = refusal("hub:me/small")
    assert "http://127.0.0.1:9 does not answer" in said
    assert "HF_HUB_OFFLINE=1 takes what is in the cache" in said


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"pip install 'atomrl\[hub\]'"):
        named_model("hub:me/small")


def test_it_is_no_run(small, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["resume", "hub:me/small"])
    assert "hub:me/small is a model, not a run" in capsys.readouterr().err
    with pytest.raises(UserError, match="is a model, not a run"):
        RLModule.load_from_checkpoint("hub:me/small")
