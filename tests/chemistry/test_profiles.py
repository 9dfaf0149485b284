"""What the published bond table lacks, and the two profiles that take bonds otherwise."""

import re
from pathlib import Path
from typing import get_args

import ase.io
import numpy as np
import own_molecules
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.data import atomic_numbers, chemical_symbols
from molecule_batches import from_atoms

from atomrl.checkpoints.published_edm import GEOM
from atomrl.chemistry.bond_entries import have_valences, missing_pairs, no_bond_entry
from atomrl.chemistry.bonds import bond_orders, published_table, valence
from atomrl.chemistry.known_smiles import read_known
from atomrl.chemistry.perceived_task import VALENCES, Perceived, perceive
from atomrl.chemistry.rdkit import PERCEIVED, PROTOCOL, SINGLE_BONDS, MoleculeChecker, bonded_molecules
from atomrl.chemistry.rdkit_task import name, rename, rename_single
from atomrl.chemistry.training_smiles import TrainingSmiles
from atomrl.config.molecules import MoleculeEvaluationSection
from atomrl.core.records import Structures
from atomrl.evaluation.molecules import BONDS, evaluate_molecules
from atomrl.evaluation.monitor import MoleculeMonitor
from atomrl.export.molecules import Annotated, write_extxyz
from atomrl.structures.molecules import Geometry
from atomrl.util.errors import UserError
from atomrl.workers.failure import Failure

PAGE = Path(__file__).parents[2] / "docs" / "your-own-molecules.md"


def batch(*all_atoms: Atoms) -> Structures:
    """Molecules, padded."""
    return from_atoms(all_atoms)


def geometry(atoms: Atoms) -> Geometry:
    return Geometry(atoms.numbers.astype(np.int64), atoms.positions)


def test_the_pairs_that_the_table_lacks() -> None:
    assert missing_pairs("HCNOF") == []
    assert missing_pairs(["F", "B", "H"]) == [("B", "B"), ("B", "F")]
    for first, second in missing_pairs(GEOM):
        numbers = torch.tensor([[atomic_numbers[first], atomic_numbers[second]]])
        assert not bond_orders(numbers, torch.tensor([[[0.0, 0, 0], [0.1, 0, 0]]])).any()
    assert len(missing_pairs(GEOM)) < 16 * 17 / 2


def test_near_atoms_without_an_entry_are_counted() -> None:
    far = Atoms("BF", [[0, 0, 0], [0, 0, 3.0]])
    lost = Atoms("BF", [[0, 0, 0], [0, 0, np.nan]])
    found = batch(molecule("BF3"), molecule("BCl3"), molecule("CH4"), far, lost)
    assert no_bond_entry(found.numbers, found.positions, found.mask).tolist() == [3, 0, 0, 0, 0]
    assert no_bond_entry(found.numbers[:0], found.positions[:0], found.mask[:0]).tolist() == []


def test_drugs_have_no_near_pair_without_an_entry() -> None:
    """The reach is short enough that atoms at an angle of 109 degrees do not count."""
    drugs = batch(*(own_molecules.atoms_of(mol) for mol in own_molecules.conformers().values()))
    assert not no_bond_entry(drugs.numbers, drugs.positions, drugs.mask).any()


def test_evaluation_and_log_count_them(records_of) -> None:
    samples = batch(molecule("BF3"), molecule("CH4"))
    found = evaluate_molecules(
        samples, records_of(samples), None, references={}, training=TrainingSmiles.load(), evaluator="none"
    )
    assert found.summary["no_bond_entry"].value == 0.5
    assert MoleculeMonitor(rdkit=False).measure(samples)["no_bond_entry"] == 0.5
    only_methane = samples[torch.tensor([1])]
    assert "no_bond_entry" not in MoleculeMonitor(rdkit=False).measure(only_methane)


def test_elements_without_a_valence(records_of, tmp_path: Path) -> None:
    """Files say nothing of the stability of such a molecule."""
    found = batch(Atoms("SeH2", [[0, 0, 0], [1.46, 0, 0], [0, 1.46, 0]]), molecule("CH4"))
    assert have_valences(found.numbers, found.mask).tolist() == [False, True]
    write_extxyz(tmp_path / "two.extxyz", Annotated(found, ["a", "b"], records_of(found)))
    stable = [atoms.info.get("stable") for atoms in ase.io.read(tmp_path / "two.extxyz", ":")]
    assert stable == [None, True]


@pytest.mark.parametrize(
    ("formula", "smiles", "rings"),
    [
        ("SH2", "[H]S[H]", 0),
        ("BF3", "FB(F)F", 0),
        ("CH3NO2", "[H]C([H])([H])[N+](=O)[O-]", 0),
        ("PH3", "[H]P([H])[H]", 0),
        ("C4H4S", "[H]c1sc([H])c([H])c1[H]", 1),
        ("CO", "[C-]#[O+]", 0),
    ],
)
def test_molecules_that_perceived_bonds_know(formula: str, smiles: str, rings: int) -> None:
    atoms = molecule(formula)
    assert perceive(geometry(atoms)) == Perceived(smiles, 1, rings, len(atoms))


def test_what_the_table_says_of_two_of_them() -> None:
    """As published, hydrogen sulphide is unstable, and boron trifluoride four lone atoms that RDKit calls valid."""
    found = batch(molecule("SH2"), molecule("BF3"))
    assert valence(found.numbers, found.positions, found.mask).molecule_stable.tolist() == [False, False]
    assert name(bonded_molecules(found)[1]).fragments == 4


def test_drugs_get_their_own_names_by_perception() -> None:
    for drug, mol in own_molecules.conformers().items():
        atoms = own_molecules.atoms_of(mol)
        found = perceive(geometry(atoms))
        rings = {"caffeine": 2, "metformin": 0}.get(drug, 1)
        assert found == Perceived(rename(own_molecules.DRUGS[drug]), 1, rings, len(atoms)), drug


def test_five_bonds_at_phosphorus() -> None:
    fluorines = [[0, 0, 1.58], [0, 0, -1.58], [1.53, 0, 0], [-0.77, 1.33, 0], [-0.77, -1.33, 0]]
    assert perceive(geometry(Atoms("PF5", [[0, 0, 0], *fluorines]))) == Perceived("FP(F)(F)(F)F", 1, 0, 6)


@pytest.mark.parametrize(
    ("atoms", "reason"),
    [
        (Atoms(), "no_atoms"),
        (molecule("CH3"), "bonds"),
        (molecule("CH2_s1A1d"), "radical"),
        (molecule("ClF3"), "bonds"),
    ],
)
def test_what_perception_refuses(atoms: Atoms, reason: str) -> None:
    with pytest.raises(Failure, match=reason):
        perceive(geometry(atoms))


def test_every_bond_as_a_single_one() -> None:
    """The published metric of GEOM-Drugs: nitrogen is NN."""
    (nitrogen,) = bonded_molecules(batch(molecule("N2")), single=True)
    assert name(nitrogen).smiles == "NN"
    assert rename_single("N#N") == "NN"
    assert rename_single("c1ccccc1") == name(bonded_molecules(batch(molecule("C6H6")), single=True)[0]).smiles


def test_names_have_no_stereochemistry() -> None:
    assert rename("C[C@H](N)C(=O)O") == rename("CC(N)C(=O)O")


def test_checker_and_evaluation_by_profile(tmp_path: Path) -> None:
    assert set(get_args(MoleculeEvaluationSection.model_fields["profile"].annotation)) == set(BONDS)
    samples = batch(molecule("SH2"), molecule("N2"), molecule("CH3"))
    (tmp_path / "known.smi").write_text("S\n")
    scores = {}
    for profile in (SINGLE_BONDS, PERCEIVED):
        with MoleculeChecker(1, 60, profile) as checker:
            records = checker.check(samples)
        known = read_known(tmp_path / "known.smi", 1, 60, profile)
        options = {"references": {}, "evaluator": "none", "profile": profile}
        scores[profile] = evaluate_molecules(samples, records, None, training=known, **options)
        without = evaluate_molecules(samples, records, None, training=None, **options)
        assert "novelty" not in without.summary
        assert without.conditions["novelty_set"] == "none"
    assert scores[SINGLE_BONDS].samples.smiles[1] == "NN"
    assert scores[SINGLE_BONDS].samples.stable.tolist() == [False, True, False]
    assert scores[PERCEIVED].samples.smiles == ("S", "N#N", None)
    assert scores[PERCEIVED].samples.smiles_explicit_h == ("[H]S[H]", "N#N", None)
    assert scores[PERCEIVED].samples.stable.tolist() == [True, True, False]
    assert scores[PERCEIVED].samples.novel.tolist() == [False, True, False]
    assert scores[PERCEIVED].summary["atom_stability"].value == 5 / 9
    assert scores[PERCEIVED].failures["rdkit"] == {"bonds": 1}
    with pytest.raises(UserError, match="follow protocol 'edm-2022'"):
        evaluate_molecules(samples, records, None, training=TrainingSmiles.load(), **options)
    TrainingSmiles.of(["S"], 1, PROTOCOL, "x").save(tmp_path / "known.safetensors")
    with pytest.raises(UserError, match=r"holds names of profile edm-2022, not of rdkit-xyz2mol: give a text file"):
        read_known(tmp_path / "known.safetensors", 1, 60, PERCEIVED)


def said_valences(symbol: str) -> str:
    """As the page says them: those of the table, and behind a semicolon those of the last profile where it differs."""
    allowed = published_table()["allowed_valence"][symbol]
    columns = allowed if isinstance(allowed, list) else [allowed], VALENCES.get((symbol, 0), ())
    table, perceived = (", ".join(map(str, column)) or "none" for column in columns)
    return table if table == perceived else f"{table}; {perceived}"


def test_the_page_lists_the_pairs_and_valences() -> None:
    section = PAGE.read_text().partition("## What the bond table does not know")[2].partition("\n## ")[0]
    listed = re.findall(r"^\| ([A-Z][a-z]?) \| ([^|]*) \| ([^|]*) \|$", section, re.M)
    assert [symbol for symbol, *_ in listed] == list(GEOM)
    for symbol, partners, valences in listed:
        lacking = {other for pair in missing_pairs(GEOM) if symbol in pair for other in pair} - {symbol}
        lacking |= {symbol} if (symbol, symbol) in missing_pairs(GEOM) else set()
        assert set(partners.split()) == lacking
        assert valences == said_valences(symbol)
    assert set(chemical_symbols) >= set(GEOM)
