"""`atomrl data reference` that is stopped in the middle, in any way, goes on to the files of an uninterrupted one."""

import signal
from pathlib import Path

import pytest
from ase.build import bulk
from made_sets import write_entries
from pymatgen.io.ase import AseAtomsAdaptor
from stopped import stop_when

from atomrl.cli import main
from atomrl.reference.energies import CHUNK

CRYSTALS = 3 * CHUNK
HULL, ENERGIES, REFERENCE = FILES = ("hull-EMT.json", "energies-EMT.jsonl", "reference.safetensors")


@pytest.fixture
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Fcc metals of many lattice constants, as entries."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    metals = ("Cu", "Ag", "Au", "Ni", "Pd", "Pt", "Al")
    crystals = {
        f"{number:04d}": AseAtomsAdaptor.get_structure(bulk(metals[number % 7], "fcc", a=3.6 + 0.001 * number))
        for number in range(CRYSTALS)
    }
    return write_entries(tmp_path / "metals.json", crystals)


@pytest.mark.slow
@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=lambda how: how.name)
def test_it_goes_on(how: signal.Signals, known: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["data", "reference", str(known), "--force-field", "{_target_: ase.calculators.emt.EMT}", "--workers", "1"]
    cut, straight = (tmp_path / name / "metals" for name in ("cut", "straight"))
    energies = cut / ENERGIES

    def begun() -> bool:
        return energies.is_file() and energies.read_bytes().count(b"\n") > 1

    stop_when(begun, [*words, "--output", str(cut)], how)
    assert not (cut / HULL).exists()
    before = energies.read_bytes()
    done = before.count(b"\n") - 1
    assert 0 < done < CRYSTALS
    with energies.open("ab") as file:
        file.write(b'["half of a li')  # as a kill while it wrote would leave it
    capsys.readouterr()
    main([*words, "--output", str(cut)])
    assert f"{CRYSTALS:,} crystals, {done:,} done, {CRYSTALS - done:,} to do" in capsys.readouterr().out
    assert energies.read_bytes().startswith(before)
    main([*words, "--output", str(straight)])
    assert {path.name for path in cut.iterdir()} == set(FILES)
    for name in FILES:
        assert (cut / name).read_bytes() == (straight / name).read_bytes()
