"""`atomrl data reference` that is stopped in the middle, in any way, goes on to the files of an uninterrupted one."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from ase.build import bulk
from made_sets import write_entries
from pymatgen.io.ase import AseAtomsAdaptor
from stopped import stop_when

from atomrl.cli import main
from atomrl.reference.energies import CHUNK

CRYSTALS = 2 * CHUNK + 50
HULL, ENERGIES, REFERENCE = FILES = ("hull-EMT.json", "energies-EMT.jsonl", "reference.safetensors")


def words(place: Path, output: Path) -> list[str]:
    """Of the command, with a calculator of ASE."""
    command = ["data", "reference", str(place / "metals.json"), "--workers", "1", "--output", str(output)]
    return [*command, "--force-field", "{_target_: ase.calculators.emt.EMT}"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with fcc metals of many lattice constants, as entries, and what is made of them without a stop."""
    place = tmp_path_factory.mktemp("known")
    metals = ("Cu", "Ag", "Au", "Ni", "Pd", "Pt", "Al")
    crystals = {
        f"{number:04d}": AseAtomsAdaptor.get_structure(bulk(metals[number % 7], "fcc", a=3.6 + 0.001 * number))
        for number in range(CRYSTALS)
    }
    write_entries(place / "metals.json", crystals)
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(os.environ, "XDG_CACHE_HOME", str(place / "cache"))
        main(words(place, place / "straight" / "metals"))
        yield place


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=lambda how: how.name)
def test_it_goes_on(how: signal.Signals, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cut, straight = place / how.name / "metals", place / "straight" / "metals"
    energies = cut / ENERGIES

    def begun() -> bool:
        return energies.is_file() and energies.read_bytes().count(b"\n") > 1

    stop_when(begun, words(place, cut), how)
    assert not (cut / HULL).exists()
    before = energies.read_bytes()
    done = before.count(b"\n") - 1
    assert 0 < done < CRYSTALS
    with energies.open("ab") as file:
        file.write(b'["half of a li')  # as a kill while it wrote would leave it
    capsys.readouterr()
    main(words(place, cut))
    assert f"{CRYSTALS:,} crystals, {done:,} done, {CRYSTALS - done:,} to do" in capsys.readouterr().out
    assert energies.read_bytes().startswith(before)
    assert {path.name for path in cut.iterdir()} == set(FILES)
    for name in FILES:
        assert (cut / name).read_bytes() == (straight / name).read_bytes()
