"""`atomrl sample --compositions`: what was asked for and nothing else, and a line about what was not found."""

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import ase.io
import pytest
import torch
from conditional_crystals import FORMULA, GAP, backbone, write
from stopped import interrupted

from atomrl.cli import main
from atomrl.core.records import Prompts, Structures
from atomrl.evaluation import rejection
from atomrl.evaluation.compositions import Composition, predict_structures
from atomrl.evaluation.evaluate import SamplePlan
from atomrl.networks.crystal_vae import CrystalVAE
from atomrl.util.errors import UserError

CPU = torch.device("cpu")
PLAN = SamplePlan(count=8, time_step=3, seed=1)
NA_CL, SR_TI_O = [11, 17], [38, 22, 8, 8, 8]


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder that makes Na and Cl of pairs, half of them as rock salt, and SrTiO3 of all others."""

    def reconstruct(self: CrystalVAE, latents: torch.Tensor, mask: torch.Tensor) -> Structures:
        numbers = torch.zeros(mask.shape, dtype=torch.int64)
        for row, size in enumerate(mask.sum(1).long().tolist()):
            right = NA_CL if latents[row, 0, 0] > 0 else [11, 11]
            numbers[row, :size] = torch.tensor(right if size == 2 else [*SR_TI_O, *SR_TI_O][:size])
        where = torch.arange(mask.shape[1])[None, :, None] * torch.tensor([1.3, 1.7, 2.1])
        return Structures(numbers, where * mask[..., None], mask > 0, 8 * torch.eye(3).expand(len(mask), 3, 3))

    monkeypatch.setattr(CrystalVAE, "reconstruct", reconstruct)


@pytest.mark.usefixtures("decoded")
def test_only_what_was_asked_for_is_found() -> None:
    model = backbone((GAP, FORMULA))
    wanted = [Composition.of(formula) for formula in ("NaCl", "SrTiO3", "LiF")]
    assert [each.atoms for each in wanted] == [2, 5, 2]
    salt, oxide, fluoride = predict_structures(model, wanted, PLAN, 4, CPU)
    assert (oxide.asked, len(oxide.structures), oxide.drawn) == (8, 8, 8)
    assert {tuple(row) for row in oxide.structures.numbers[:, :5].tolist()} == {tuple(SR_TI_O)}
    assert 4 <= len(salt.structures) <= 8
    assert salt.drawn > 8  # about half of the walks have another composition
    assert {tuple(row) for row in salt.structures.numbers[:, :2].tolist()} == {tuple(NA_CL)}
    assert (len(fluoride.structures), fluoride.drawn, len(fluoride.others)) == (0, 32, 8)


@pytest.mark.usefixtures("decoded")
def test_the_command_says_what_came_of_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, path = write(tmp_path / "net"), tmp_path / "some.extxyz"
    words = ["sample", "--backbone", str(folder), "-n", "3", "--time-step", "3", "--tries", "2", "--output", str(path)]
    main([*words, "--compositions", "SrTiO3", "LiF"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "SrTiO3: 3 asked, 3 got, 3 drawn"
    assert lines[1].startswith("LiF: 3 asked, 0 got, 6 drawn; 3 had another composition each time, at last ")
    assert lines[2] == f"3 crystals -> {path}"
    assert [Counter(atoms.numbers.tolist()) for atoms in ase.io.read(path, ":")] == [Counter(SR_TI_O)] * 3
    path.unlink()
    with pytest.raises(SystemExit) as stopped:
        main([*words, "--compositions", "LiF"])
    assert stopped.value.code == 2
    assert "no sample has the composition that was asked for, after 2 tries each" in capsys.readouterr().err
    assert not path.exists()


@pytest.mark.usefixtures("decoded")
def test_a_stopped_command_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """To the file of an uninterrupted one, with lines about all that was drawn."""
    monkeypatch.setattr(rejection, "LOT", 16)
    drawn = ["sample", "--backbone", str(write(tmp_path / "net")), "-n", "24", "--time-step", "3", "--tries", "2"]
    drawn += ["--compositions", "NaCl", "SrTiO3", "LiF"]
    straight, cut = ([*drawn, "--output", str(tmp_path / f"{name}.extxyz")] for name in ("straight", "cut"))
    main(straight)
    said = capsys.readouterr().out
    salt, oxide, fluoride, _ = said.splitlines()
    assert re.match(
        r"NaCl: 24 asked, \d+ got, \d+ drawn; \d+ had another composition each time, at last Na \(\d+\)", salt
    )
    assert oxide == "SrTiO3: 24 asked, 24 got, 24 drawn"
    assert fluoride.startswith("LiF: 24 asked, 0 got, 48 drawn; 24 had another composition each time, at last Na")
    interrupted(2, cut)
    assert "stopped after 32 of 72 samples: the same command continues" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([*cut, "--tries", "3"])
    assert "was begun with tries 2, not 3" in capsys.readouterr().err
    main(cut)
    assert capsys.readouterr().out == said.replace("straight", "cut")
    assert (tmp_path / "cut.extxyz").read_bytes() == (tmp_path / "straight.extxyz").read_bytes()


def test_prompts_ask_for_composition_and_formula_units(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Seen(Exception):
        pass

    def watched(policy: object, prompts: Prompts, *_: object) -> None:
        asked.append(prompts)
        raise Seen

    monkeypatch.setattr("atomrl.evaluation.compositions.until_accepted", watched)
    model = replace(backbone((FORMULA,)), sizes={2: 1, 4: 3, 5: 9, 6: 0})
    with pytest.raises(Seen):
        predict_structures(model, [Composition.of("NaCl")], replace(PLAN, count=400), 2, CPU)
    (prompts,) = asked
    assert prompts.sizes.unique().tolist() == [2, 4]  # of the histogram, 3 of 4 with two formula units
    assert 0.65 < float((prompts.sizes == 4).double().mean()) < 0.85
    assert torch.equal(prompts.sample_ids, torch.arange(400))
    assert {number: share for number, share in enumerate(prompts.context[0].tolist()) if share} == {11: 0.5, 17: 0.5}


@pytest.mark.parametrize(
    ("formulas", "more", "message"),
    [
        (["Qq2"], [], "--compositions Qq2: 'Qq' is not an element with Z below 100"),
        (["Na("], [], "--compositions Na(: 'Na(' is not a formula"),
        (["H1" + 21 * "0"], [], "'H1000000000000000000000' has more than 1,000,000 atoms: give a formula of one cell"),
        (["H999"], [], "H999: 999 atoms, and the model makes 5 at most; ask for the reduced formula if that is meant"),
        (["5"], [], "--compositions 5: '5' names no element: give a formula of whole atoms, e.g. LiMnO2"),
        (["NaCl", "Na2Cl2"], [], "NaCl and Na2Cl2 are the same; name each once"),
        (["Al2O3", "NaCl"], ["--formula-units", "3"], "Al2O3: cells of 15 atoms (--formula-units), and the model was"),
        (
            ["Mg3Al2Si3O12"],
            [],
            "Mg3Al2Si3O12: 20 atoms in a formula unit, and the model was trained on cells of 2, 5 atoms",
        ),
        (["(NaCl)0"], [], "--compositions (NaCl)0: '(NaCl)0' is not a formula of whole atoms without charges"),
        (
            ["NaCl"],
            ["--context", "composition=LiF"],
            "composition=LiF: the compositions say this already; leave it out",
        ),
        (["NaCl"], ["--sizes", "4"], "--compositions and --sizes do not go together"),
        (["NaCl"], ["--reject", "4"], "--compositions and --reject do not go together"),
        (["NaCl"], ["--tries", "0"], "--tries 0: must be at least 1"),
        (["NaCl"], ["--formula-units", "0"], "--formula-units 0: must be at least 1"),
        ([], ["--formula-units", "2"], "--formula-units is about formulas: give --compositions too"),
    ],
)
def test_what_cannot_be(
    formulas: list[str], more: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["sample", "--backbone", str(write(tmp_path / "net")), "--output", str(tmp_path / "a.cif"), *more]
    with pytest.raises(SystemExit) as stopped:
        main([*words, *(["--compositions", *formulas] if formulas else [])])
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


@pytest.mark.parametrize("name", ["crystal_small", "edm_qm9_small", "of_gaps"])
def test_a_model_without_that_condition(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = str(write(tmp_path / "net", (GAP,))) if name == "of_gaps" else name
    output = tmp_path / ("a.sdf" if name == "edm_qm9_small" else "a.extxyz")
    with pytest.raises(SystemExit) as stopped:
        main(["sample", "--backbone", where, "--output", str(output), "--compositions", "NaCl"])
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    if name == "edm_qm9_small":
        assert "error: --compositions is for crystals, and " in line
        assert "edm_qm9_small makes molecules: leave it out, or give a model of crystals that is cond" in line
    else:
        assert "is not conditioned on composition: make a model that is" in line


SAMPLE = ["sample", "-n", "1", "--time-step", "2", "--backbone"]


@pytest.mark.parametrize("scale", ["3", "2", "1"])
@pytest.mark.parametrize(
    "command",
    [
        [*SAMPLE, "crystal_small"],
        ["evaluate", "-n", "1", "--time-step", "2", "--base", "crystal_small"],
        ["train", "experiment=prototypes/rl_dng", "reward.type=dummy", "evaluation.samples=0", "save_path=run"],
    ],
    ids=["sample", "evaluate", "train"],
)
def test_a_typed_guidance_scale_needs_something_to_guide(
    command: list[str], scale: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The default too."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main([*command, f"model.guidance_scale={scale}"])
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"model.guidance_scale={scale}: " in line
    assert "is not conditional, and guidance would change nothing; leave it out" in line
    assert list(tmp_path.iterdir()) == []


def test_a_conditional_model_takes_any_guidance_scale(tmp_path: Path) -> None:
    model, made = str(write(tmp_path / "net")), []
    for words in ([], ["model.guidance_scale=2"], ["model.guidance_scale=1"]):
        main([*SAMPLE, model, *words, "--output", str(tmp_path / "a.extxyz")])
        made.append((tmp_path / "a.extxyz").read_text())
    assert made[0] == made[1] != made[2]


def test_guidance_needs_a_training_without_conditions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its null vectors are random numbers else."""
    card = write(tmp_path / "net") / "model.json"
    card.write_text(json.dumps({**json.loads(card.read_text()), "drop_prob": 0.0}))
    words = [*SAMPLE, str(card.parent), "--output", str(tmp_path / "a.extxyz")]
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2
    assert (
        "was trained with drop_prob=0, without its conditions at most where they are unknown" in capsys.readouterr().err
    )
    main([*words, "model.guidance_scale=1"])
    assert len(ase.io.read(tmp_path / "a.extxyz", ":")) == 1


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        ("Mg3Al2Si3O12", "composition=Mg3Al2Si3O12: 20 atoms in a formula unit, and samples have 2, 5 atoms"),
        ("H999", "composition=H999: 999 atoms, and the model makes 5 at most"),
        ("H1" + 21 * "0", "condition composition: 'H1000000000000000000000' has more than 1,000,000 atoms"),
        ("5", "condition composition: '5' names no element"),
    ],
)
def test_a_wish_that_no_cell_can_hold(
    formula: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*SAMPLE, str(write(tmp_path / "net")), "--context", f"composition={formula}", "band_gap=1"])
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_a_formula_is_reduced() -> None:
    with pytest.raises(UserError, match="'' names no element"):
        Composition.of("")
    assert Composition.of("Ti2O4").counts.nonzero().flatten().tolist() == [8, 22]
    assert Composition.of("Ti2O4").atoms == 3
