"""Heats of formation out of a force field's energies, and the study's command."""

import csv
from pathlib import Path

import numpy as np
import pytest
from crystal_samples import ROCK_SALT

from atomrl.force_fields.chgnet import CHGNetForceField
from atomrl.structures.crystals import from_pymatgen
from studies.chgnet_agreement import Heats, main


def test_a_fit_finds_the_references() -> None:
    rng = np.random.default_rng(0)
    shares = np.zeros((200, 119))
    shares[:, [3, 8, 22, 38]] = rng.dirichlet(np.ones(4), 200)
    references, heats = np.zeros(119), rng.normal(size=200)
    references[[3, 8, 22, 38]] = [-1.9, -4.9, -7.8, -1.6]
    energies = 0.2 * heats + shares @ references
    found = Heats.fit(shares, energies, heats)
    assert found.factor == pytest.approx(0.2)
    np.testing.assert_allclose(found.elements[[3, 8, 22, 38]], references[[3, 8, 22, 38]])
    np.testing.assert_allclose(found.of(shares, energies), heats)
    strange = np.zeros((1, 119))
    strange[0, [3, 9]] = 0.5
    assert np.isnan(found.of(strange, np.array([-3.0]))).all()


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a property that is CHGNet's energy, the correlation is 1."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    halides = []
    for metal in ("Li", "Na", "K", "Rb", "Cs"):
        for halide in ("F", "Cl", "Br", "I"):
            crystal = ROCK_SALT.copy()
            crystal.replace_species({"Na": metal, "Cl": halide})
            halides.append(crystal)
    with CHGNetForceField() as force_field:
        energies = [
            one.energy / 2
            for one in force_field.evaluate(from_pymatgen([c.get_primitive_structure() for c in halides]))
        ]
    for split, rows in {"train": slice(0, 20), "val": slice(0, 4), "test": slice(0, 8)}.items():
        with (tmp_path / f"{split}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["material_id", "cif", "heat"])
            for number, (crystal, energy) in enumerate(zip(halides[rows], energies[rows], strict=True)):
                writer.writerow([number, crystal.to(fmt="cif"), 3 * energy + 1])
    main([str(tmp_path), "heat"])
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "heat: CHGNet's energies fitted to 20 training crystals"
    assert said[1].startswith("8 test crystals: rank correlation 1.000 [1.000, 1.000] of 8")
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path), "mass"])
    assert ended.value.code == 2
    assert "needs test crystals and a property 'mass'; its properties: heat" in capsys.readouterr().err
