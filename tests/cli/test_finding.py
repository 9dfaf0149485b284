"""What a user asks the program itself: what there is, what can be set, whether all is well."""

import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from refusals import refused

from atomrl.checkpoints.shipped import BACKBONES
from atomrl.cli import main
from atomrl.config import load_config
from atomrl.config.naming import named_yaml
from atomrl.finding import doctor, extras, listing
from atomrl.finding.key_table import keys_of, page
from atomrl.finding.keys import OF
from atomrl.force_fields.xtb import XTBForceField
from atomrl.library.evaluation_options import BESIDE
from atomrl.rewards.base import RewardComponent
from atomrl.user_code.load import load_object
from atomrl.util.registry import registered_names


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    main(list(words))
    return capsys.readouterr().out


def helped(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main([*words, "--help"])
    assert caught.value.code == 0
    return capsys.readouterr().out


def test_every_entry_is_one_line_that_says_something(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = printed(capsys, "list").split("\n\n")
    assert [block.partition(":")[0] for block in blocks] == list(listing.KINDS)
    for block, kind in zip(blocks, listing.KINDS, strict=True):
        entries = listing.KINDS[kind]()
        assert len(block.strip().splitlines()) == 1 + len(entries)
        assert all(len(entry.said) > 20 for entry in entries), kind
    assert printed(capsys, "list", "objectives", "backbones").count("\n\n") == 1
    assert "things: there is no such list; there are configurations, " in refused(capsys, "list", "things")


def test_what_is_listed_can_be_named_as_it_is_listed() -> None:
    """Configurations compose; backbones, force fields and objectives are all; components can be made."""
    for entry in listing.configurations():
        word = entry.name.removesuffix(" (the default)")
        name, words = (word.split()[1], []) if word.startswith("--config-name ") else ("demo", [word])
        config = load_config(name, words)
        assert (config.domain == "crystals") == (entry.extra == "crystals"), word
        assert named_yaml(words, None)[1] == []
    assert [entry.name for entry in listing.backbones()] == list(BACKBONES)
    folder = "atomrl.force_fields"
    of = {entry.name: entry.said.partition(":")[0] for entry in listing.force_fields()}
    assert {name for name, what in of.items() if "molecules" in what} == set(registered_names(folder))
    assert {name for name, what in of.items() if "crystals" in what} == set(registered_names(folder, "CRYSTAL_SPEC"))
    assert tuple(entry.name for entry in listing.objectives()) == registered_names("atomrl.core.objectives")
    named = [entry.name for entry in listing.rewards()]
    assert [name for name in named if "=" in name] == ["reward.type=xtb", "reward.type=dummy", "reward.type=reinforce"]
    assert all(issubclass(load_object(name), RewardComponent) for name in named if "=" not in name)


def test_every_configuration_is_in_the_guide_to_its_domain() -> None:
    docs = Path(__file__).parents[2] / "docs"
    named = {}
    for domain in ("molecules", "crystals"):
        cells = re.findall(r"^\| (`.*?) \|", (docs / f"{domain}.md").read_text(), re.MULTILINE)
        named[domain] = {name for cell in cells for name in re.findall(r"`(.+?)`", cell)}
    for entry in listing.configurations():
        name = re.split("[ =]", entry.name.removesuffix(" (the default)"))[-1]
        assert name in named[entry.extra or "molecules"], name


def test_whether_an_extra_is_installed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    needed = {entry.name: entry.extra for entry in listing.force_fields()}
    assert needed == {
        "ani": "ani",
        "chgnet": "crystals",
        "mace": None,
        "sevennet": "sevennet",
        "uma": "uma",
        "xtb": None,
    }
    assert "crystal_small" in printed(capsys, "list", "backbones")
    monkeypatch.setattr(extras, "version_of", lambda package: None if package == "chgnet" else "1.0")
    shown = printed(capsys, "list", "backbones", "force-fields")
    for line in shown.splitlines():
        lacks = line.split()[:1] in (["crystal_small"], ["chgnet"], ["sevennet"])  # its extra brings that of crystals
        assert ("not installed, pip install 'atomrl[" in line) == lacks, line
    assert "[extra crystals: not installed, pip install 'atomrl[crystals]']" in shown


def test_extras_are_those_that_are_declared() -> None:
    found = extras.packages_of_extras()
    assert {"ani", "crystals", "data", "eval", "hub", "sevennet", "uma", "wandb"} <= found.keys()
    assert "dev" not in found
    assert "chgnet" in found["crystals"]


def test_keys_of_a_prefix(capsys: pytest.CaptureFixture[str]) -> None:
    shown = printed(capsys, "keys", "train.learning_")
    assert re.fullmatch(
        r"train\.learning_rate +float +5e-06\n    Peak learning rate of AdamW\. Allowed: .*\n", shown
    ), shown
    shown = printed(capsys, "keys", "reward.timeout")
    assert re.search(r"reward\.timeout +float +10\.0 s\n    Seconds that one molecule may take", shown)
    assert "crystals, where they differ:" in shown
    assert "Seconds that the structure matcher may take" in shown
    assert printed(capsys, "keys", "reward.hull").startswith("crystals only:\n")
    assert printed(capsys, "keys", "--of", "vae", "model.width").startswith("model.width")


def test_all_keys_are_there(capsys: pytest.CaptureFixture[str]) -> None:
    for of, kind in OF.items():
        shown = printed(capsys, "keys", "--of", of)
        names = [line.split()[0] for line in shown.splitlines() if not line.startswith(" ")]
        assert names == [key.name for key in keys_of(kind())]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train.learn_rate"], "begins with train.learn_rate: did you mean train.learning_rate?"),
        (["learning_rate"], "did you mean train.learning_rate?"),
        (["zzzz"], "no key of molecules or crystals begins with zzzz: atomrl keys lists all"),
        (["--of", "edm", "reward."], "no key of edm begins with reward."),
        (["--of", "edn"], "--of edn: must be one of molecules, crystals, edm, regressor, vae, ldm, predictor"),
    ],
)
def test_keys_that_there_are_not(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert message in refused(capsys, "keys", *words)


@pytest.mark.parametrize("what", ["edm", "regressor", "vae", "ldm", "predictor"])
def test_the_help_of_a_pretraining_shows_its_keys(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown = helped(capsys, "pretrain", what)
    for key in keys_of(OF[what]()):
        assert re.search(rf"^{re.escape(key.name)} ", shown, re.MULTILINE), key.name
    assert "train.steps" not in helped(capsys, "pretrain")


def test_what_a_command_reads_of_the_keys_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    for shown in (helped(capsys, "evaluate"), page()):
        assert [key for key in BESIDE if key not in shown] == []
    shown = " ".join(helped(capsys, "resume").split())
    assert "how long the run is, where it runs, and what it writes and judges" in shown


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"atomrl {version('atomrl')}\n"


def test_a_doctor_who_finds_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """xTB is called in a worker, on water."""
    lines = printed(capsys, "doctor").splitlines()
    assert all(line.startswith("ok    ") for line in lines)
    for said in (f"atomrl {version('atomrl')} in ", "Python 3", f"torch {version('torch')}", "extra crystals: ", "GPU"):
        assert any(said in line for line in lines), said
    assert re.search(r"cores may be used; torch takes \d+ threads", "\n".join(lines))
    assert "a worker process and xTB: water has -137.97 eV" in lines[-1]


class Wrong(XTBForceField):
    """xTB whose energies are another method's."""

    def evaluate(self, structures):
        [found] = super().evaluate(structures)
        return [type(found)(found.energy + 1, found.forces, found.reason)]


def test_a_doctor_who_finds_something(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(doctor, "version_of", lambda package: None if package == "rdkit" else "1.0")
    monkeypatch.setattr(doctor, "XTBForceField", Wrong)
    with pytest.raises(SystemExit) as caught:
        main(["doctor"])
    assert caught.value.code == 2
    shown = capsys.readouterr()
    wrong = [line for line in shown.out.splitlines() if line.startswith("FIX ")]
    assert wrong[0].startswith("FIX   rdkit is not installed: pip install")
    assert "xTB gives water -136.97 eV and not -138.0 eV: pip install --force-reinstall tblite" in wrong[1]
    assert shown.err == "error: 2 of these must be fixed: the lines that begin with FIX say how\n"


def test_lists_and_the_help_load_no_physics() -> None:
    """They answer at once."""
    code = (
        "import sys\nfrom contextlib import suppress\nfrom atomrl.cli import main\nmain(['list'])\n"
        "with suppress(SystemExit):\n    main(['pretrain', '--help'])\n"
        "print([name for name in ('torch', 'rdkit', 'pymatgen', 'chgnet') if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
