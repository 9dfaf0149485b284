"""A function of the user's gets what the annotation of its first parameter names: tensors, RDKit's or ASE's objects."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ase
import numpy as np
import pytest
import torch
from ase.build import molecule
from molecule_batches import from_atoms
from rdkit import Chem
from rdkit.Chem import Crippen
from rdkit.Chem import Mol as Molecule

from atomrl.cli import main
from atomrl.core.prompts import ungrouped
from atomrl.core.records import Structures
from atomrl.rewards.check import example_crystals
from atomrl.rewards.components import CustomReward, RewardComponent, Scores
from atomrl.rewards.reinforce import ReinforceReward
from atomrl.structures.listing import MOLECULES, form_of
from atomrl.util.errors import UserError

EXAMPLES = Path(__file__).parents[2] / "examples"


def batch() -> Structures:
    """Ethanol; methane whose atoms lie on a heap; cyclopropane; methane with a coordinate that is not a number."""
    ethanol, broken, ring, unknown = (molecule(name) for name in ("CH3CH2OH", "CH4", "C3H6_D3h", "CH4"))
    broken.positions[:] = 0.05 * np.arange(5)[:, None]
    unknown.positions[2, 0] = np.nan
    return from_atoms([ethanol, broken, ring, unknown], torch.float32)


def scored(function: Any, **options: Any) -> Any:
    structures = batch()
    reward = ReinforceReward([CustomReward(function, **options)], listing=MOLECULES, totals=False)
    return reward.score(structures, ungrouped(structures))


def of_atoms(structures: list[ase.Atoms]) -> list[int]:
    assert all(type(one) is ase.Atoms for one in structures)
    return [len(one) for one in structures]


def of_molecules(molecules: list[Chem.Mol]) -> list[float]:
    assert all(isinstance(one, Chem.Mol) for one in molecules)
    return [Crippen.MolLogP(one) for one in molecules]


def of_structures(structures: Structures) -> torch.Tensor:
    assert isinstance(structures, Structures)
    return structures.sizes.double()


def of_any(structures: list[Any]) -> list[int]:
    assert all(type(one) is ase.Atoms for one in structures)
    return [len(one) for one in structures]


def in_words(molecules: "Sequence[NotImported.Mol]") -> None: ...  # noqa: F821


@pytest.mark.parametrize(
    ("function", "form"),
    [
        (of_atoms, "Atoms"),
        (of_molecules, "Mol"),
        (of_structures, "Structures"),
        (of_any, None),
        (in_words, "Mol"),
        (lambda structures: structures, None),
        (lambda: None, None),
        (np.sum, None),
        (min, None),
    ],
)
def test_the_annotation_is_read(function: Any, form: str | None) -> None:
    assert form_of(function) == form


@pytest.mark.parametrize("function", [of_atoms, of_any, of_structures])
def test_all_sound_samples(function: Any) -> None:
    table = scored(function)
    assert table.reasons == (None, None, None, "nonfinite")
    assert table.channels[function.__name__].nan_to_num().tolist() == [9, 5, 9, 0]


def test_valid_molecules_alone() -> None:
    """What RDKit cannot sanitise has its reason; the others their numbers, each in its own row."""
    table = scored(of_molecules)
    assert table.reasons == (None, "valence", None, "nonfinite")
    values = table.channels["of_molecules"]
    assert values.isnan().tolist() == [False, True, False, True]
    for row, smiles in ((0, "CCO"), (2, "C1CC1")):
        assert float(values[row]) == pytest.approx(Crippen.MolLogP(Chem.MolFromSmiles(smiles)), abs=1e-6)


def test_molecules_are_as_sampled() -> None:
    """Atoms in their order, hydrogens among them, and their positions."""

    def looks(molecules: list[Chem.Mol]) -> list[float]:
        ethanol = molecules[0]
        assert [atom.GetAtomicNum() for atom in ethanol.GetAtoms()] == molecule("CH3CH2OH").numbers.tolist()
        np.testing.assert_allclose(ethanol.GetConformer().GetPositions(), molecule("CH3CH2OH").positions, atol=1e-5)
        return [float(len(molecules))] * len(molecules)

    assert scored(looks).channels["looks"][0] == 2


class Positions:
    """A plain class."""

    def compute(self, gen_structures: list[Molecule], **kwargs: Any) -> Scores:
        assert len(kwargs["batch_gen"]) == len(gen_structures) == 2
        assert "metrics_obj" not in kwargs
        return Scores(torch.tensor([1.0, torch.nan]), (None, "odd"))


class Component(RewardComponent):
    def compute(self, gen_structures: Structures, **kwargs: Any) -> torch.Tensor:
        return gen_structures.sizes


def test_classes_too() -> None:
    assert scored(Positions).reasons == (None, "valence", "odd", "nonfinite")
    assert scored(Component).channels["component"][0] == 9


class Metrics(RewardComponent):
    required_metrics = ("novel",)

    def compute(self, gen_structures: list[Chem.Mol], **kwargs: Any) -> torch.Tensor:
        return torch.zeros(len(gen_structures))


def test_what_cannot_be_had() -> None:
    with pytest.raises(UserError, match="metrics asks for Mol, which only valid molecules are, and for metrics"):
        ReinforceReward([Metrics()], listing=MOLECULES)
    with pytest.raises(UserError, match=r"of_molecules asks for Mol .* crystals come as Structures"):
        ReinforceReward([CustomReward(of_molecules)])


def test_a_message_names_the_sample() -> None:
    """Its row is that of the batch, not of the valid ones."""

    def infinite(molecules: list[Chem.Mol]) -> list[float]:
        return [0.0, float("inf")]

    with pytest.raises(UserError, match=r"infinite: inf for sample 2 \(C3H6\)"):
        scored(infinite)


def test_crystals_as_structures() -> None:
    def volume(structures: Structures) -> torch.Tensor:
        return torch.linalg.det(structures.cell)

    crystals, prompts = example_crystals()
    table = ReinforceReward([CustomReward(volume)]).score(crystals, prompts)
    torch.testing.assert_close(table.diagnostics["raw_volume"], torch.linalg.det(crystals.cell))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["drug_likeness", "rings", "log_p", "ease_of_synthesis"])
def test_each_function_of_the_example(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["check-reward", f"examples/drug_likeness.py:{name}", "--molecules"])
    assert capsys.readouterr().out.rstrip().endswith("ok")


def test_the_example_knows_its_chemistry(folder: Path) -> None:
    """Aspirin is more like a drug than decane, and easier to make than a bridged cage; both have a known logP."""
    from atomrl.user_code.load import load_object

    def valued(name: str, *smiles: str, **options: Any) -> list[float]:
        molecules = [Chem.AddHs(Chem.MolFromSmiles(text)) for text in smiles]
        return list(load_object(f"examples/drug_likeness.py:{name}")(molecules, **options))

    aspirin, decane, cubane = "CC(=O)Oc1ccccc1C(=O)O", "CCCCCCCCCC", "C12C3C4C1C5C2C3C45"
    assert np.diff(valued("drug_likeness", decane, aspirin)) > 0
    assert np.diff(valued("ease_of_synthesis", cubane, aspirin)) > 0
    assert valued("rings", decane, aspirin, cubane) == [0, 1, 2]
    assert valued("log_p", aspirin, target=1.3101) == pytest.approx([0], abs=1e-3)  # RDKit's documented value


def test_a_training_by_the_example(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    words = ["dataloader.epoches=2", "dataloader.sample_group_size=1", "dataloader.each_prompt_sample=4"]
    words += ["model.time_step=20", "train.nft.times=2", "train.num_inner_batch=2", "reward.workers=1", "threads=1"]
    words += ["log.tensorboard=false", "train.warmup_steps=0"]
    main(["train", "--config-dir", "examples", "--config-name", "drug_likeness", "save_path=run", *words])
    rows = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    names = ["force", "drug_likeness", "rings", "log_p", "ease_of_synthesis", "homo_lumo_gap"]
    assert {f"{name}_reward_mean" for name in names} <= rows[0].keys()
    assert len(rows) == 2
    assert rows[0]["grad_norm"] > 0
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == []
