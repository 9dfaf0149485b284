"""The report as a user meets it: opened from disk in a real browser, without a network."""

import io
import re
import time
from pathlib import Path

import ase.io
import numpy as np
import pyarrow.parquet as pq
import pytest
from browser import PATIENCE, chromium, complaints, requested
from PIL import Image
from pymatgen.io.cif import CifParser
from rdkit import Chem
from report_runs import molecules, write_evaluation, write_log
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select, WebDriverWait

from atomrl.report.report import LARGEST, write_report

pytestmark = pytest.mark.slow

HOSTILE = "<img src=x onerror=document.title='gone'>"
"""A name that would be run if it were taken for markup."""


@pytest.fixture(scope="module")
def downloads(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def driver(downloads):
    with chromium(downloads) as started:
        yield started


@pytest.fixture(scope="module")
def molecule_run(qm9_test, records_of, tmp_path_factory) -> Path:
    folder = write_log(tmp_path_factory.mktemp("runs") / HOSTILE)
    few = qm9_test[:30]
    judged = {"base": molecules(few, records_of, 0.08, 4.0), "trained": molecules(few, records_of, 0.02, 1.0)}
    write_evaluation(folder / "evaluation", judged, {"molecule_stability"}, f"atomrl train {HOSTILE}")
    return folder


@pytest.fixture(scope="module")
def young_run(tmp_path_factory) -> Path:
    return write_log(tmp_path_factory.mktemp("runs") / "young", 5)


def opened(driver, words) -> Path:
    """The report of some runs, in the browser; nothing but the file itself is asked for."""
    path = write_report(words, words[0].parent / "shown.html").path
    assert path.stat().st_size < LARGEST
    complaints(driver), requested(driver)
    driver.get(path.as_uri())
    WebDriverWait(driver, PATIENCE).until(lambda page: page.find_elements(By.CSS_SELECTOR, "body[data-ready]"))
    return path


@pytest.fixture
def molecule_page(driver, molecule_run):
    path = opened(driver, [molecule_run])
    yield driver
    assert complaints(driver) == []
    assert requested(driver) == [path.as_uri()]


@pytest.fixture
def crystal_page(driver, crystal_run):
    path = opened(driver, [crystal_run])
    yield driver
    assert complaints(driver) == []
    assert requested(driver) == [path.as_uri()]


def table_of(run: Path, heading: str) -> list[dict]:
    rows = pq.read_table(run / "evaluation" / "evaluation.parquet").to_pylist()
    return [row for row in rows if row["column"] == heading]


def cards(driver, side: int) -> list[str]:
    """Ids of the cards of a side, as they stand."""
    found = driver.find_elements(By.CSS_SELECTOR, f'[data-side="{side}"].side .card')
    return [card.get_attribute("data-id") for card in found]


def press(driver, text: str) -> None:
    """Press the button of this text that is seen."""
    buttons = driver.find_elements(By.XPATH, f"//button[normalize-space()='{text}']")
    [button] = [found for found in buttons if found.is_displayed()]
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
    button.click()


def open_card(driver, side: int, name: str) -> None:
    card = driver.find_element(By.CSS_SELECTOR, f'[data-side="{side}"].side .card[data-id="{name}"]')
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", card)
    card.click()
    WebDriverWait(driver, PATIENCE).until(lambda page: page.find_element(By.ID, "viewer").is_displayed())


def drawn(driver) -> np.ndarray:
    """The pixels of the 3-D view, once something stands in it."""

    def pixels(page):
        picture = Image.open(io.BytesIO(page.find_element(By.CSS_SELECTOR, ".stage canvas").screenshot_as_png))
        found = np.asarray(picture.convert("RGB"), dtype=int)
        return [found] if (found != found[0, 0]).any() else None

    [found] = WebDriverWait(driver, PATIENCE).until(pixels)
    return found


def turned(driver) -> float:
    """Share of the view's pixels that change when it is dragged."""
    before = drawn(driver)
    canvas = driver.find_element(By.CSS_SELECTOR, ".stage canvas")
    ActionChains(driver).move_to_element(canvas).click_and_hold().move_by_offset(90, 40).release().perform()
    after = before
    started = time.monotonic()
    while (after == before).all() and time.monotonic() - started < PATIENCE:
        after = drawn(driver)
    return float((np.abs(after - before).max(-1) > 8).mean())


def file_text(driver) -> str:
    return driver.find_element(By.CSS_SELECTOR, ".file textarea").get_attribute("value")


def test_it_opens_from_disk_and_a_name_is_only_a_name(molecule_page, molecule_run):
    assert molecule_page.find_element(By.TAG_NAME, "h1").text == f"atomrl report: {HOSTILE}"
    assert molecule_page.title == f"atomrl report: {HOSTILE}"
    assert not molecule_page.find_elements(By.CSS_SELECTOR, "img[src='x']")
    tables = molecule_run / "evaluation" / "evaluation.md"
    rows = molecule_page.find_elements(By.CSS_SELECTOR, "#tables tr[data-metric]")
    assert len(rows) == 16
    [written] = re.findall(r"\| molecule stability ↑ \| yes \|(.*?)\|(.*?)\|", tables.read_text())
    cells = molecule_page.find_elements(By.CSS_SELECTOR, "tr[data-metric=molecule_stability] td.number")
    assert [cell.text.split() for cell in cells] == [cell.split() for cell in written]
    figures = molecule_page.find_elements(By.CSS_SELECTOR, "#training figure")
    assert [figure.get_attribute("data-curve") for figure in figures] == ["reward", "rms_force", "grad_norm"]
    assert all(figure.find_elements(By.CSS_SELECTOR, "path.mean") for figure in figures)
    for figure in figures:
        labels = [label.text for label in figure.find_elements(By.CSS_SELECTOR, "text[text-anchor=end]")]
        assert 2 <= len(set(labels)) == len(labels) <= 6
    molecule_page.find_element(By.CSS_SELECTOR, "#training summary").click()
    WebDriverWait(molecule_page, PATIENCE).until(
        lambda page: len(page.find_elements(By.CSS_SELECTOR, "#training figure")) == 4
    )
    assert molecule_page.find_elements(By.CSS_SELECTOR, "#histograms figure")


def test_rings_of_both_sides_are_bars_beside_each_other(molecule_page, molecule_run):
    known = [row["rings"] for heading in ("base", "trained") for row in table_of(molecule_run, heading) if row["valid"]]
    numbers = [str(number) for number in range(min(known), max(known) + 1)]
    figure = molecule_page.find_element(By.CSS_SELECTOR, "figure[data-histogram='rings of valid molecules']")
    labels = figure.find_elements(By.CSS_SELECTOR, "text[text-anchor=middle]")
    assert [label.text for label in labels] == numbers
    assert len(figure.find_elements(By.TAG_NAME, "rect")) == 2 * len(numbers)


def test_sorting_sorts(molecule_page, molecule_run):
    rows = {heading: table_of(molecule_run, heading) for heading in ("base", "trained")}

    def ids(heading, key, reverse=False):
        return [row["sample_id"] for row in sorted(rows[heading], key=key, reverse=reverse)][:12]

    def force(row):
        return np.inf if row["rms_force"] is None else row["rms_force"]

    for side, heading in enumerate(rows):
        assert cards(molecule_page, side) == ids(heading, force)
    press(molecule_page, "worst")
    for side, heading in enumerate(rows):
        assert cards(molecule_page, side) == ids(heading, force, reverse=True)
        assert cards(molecule_page, side)[0] == "00000"  # that has no force at all
    press(molecule_page, "median")
    middle = sorted(rows["base"], key=force)[14:16]
    assert set(cards(molecule_page, 0)[:2]) == {row["sample_id"] for row in middle}
    press(molecule_page, "random")
    first = cards(molecule_page, 0)
    assert cards(molecule_page, 1) == first
    press(molecule_page, "random")
    assert cards(molecule_page, 0) != first
    Select(molecule_page.find_element(By.CSS_SELECTOR, "select[aria-label='sort by']")).select_by_value("atoms")
    press(molecule_page, "highest")
    shown = [row["atoms"] for name in cards(molecule_page, 0) for row in rows["base"] if row["sample_id"] == name]
    assert shown == sorted((row["atoms"] for row in rows["base"]), reverse=True)[:12]


def test_the_filter_filters(molecule_page, molecule_run):
    rows = table_of(molecule_run, "trained")

    def heading(side):
        return molecule_page.find_element(By.CSS_SELECTOR, f'[data-side="{side}"].side h3').text

    def choose(column, test, value=None):
        form = molecule_page.find_element(By.CSS_SELECTOR, "#samples form")
        Select(form.find_element(By.CSS_SELECTOR, "[aria-label='filter by']")).select_by_value(column)
        Select(form.find_element(By.CSS_SELECTOR, "[aria-label=condition]")).select_by_value(test)
        if value is not None:
            form.find_element(By.CSS_SELECTOR, "[aria-label=value]").send_keys(value)
        press(molecule_page, "Add filter")

    assert heading(1).endswith("30 of 30")
    choose("atoms", "≥", "16")
    large = [row for row in rows if row["atoms"] >= 16]
    assert heading(1).endswith(f"{len(large)} of 30")
    assert 0 < len(large) < 30
    choose("stable", "is yes")
    stable = [row for row in large if row["stable"]]
    assert heading(1).endswith(f"{len(stable)} of 30")
    assert set(cards(molecule_page, 1)) <= {row["sample_id"] for row in stable}
    choose("smiles", "contains", "N")
    named = [row for row in stable if "n" in row["smiles"].lower()]
    assert heading(1).endswith(f"{len(named)} of 30")
    for _ in range(3):
        molecule_page.find_element(By.CSS_SELECTOR, "button[data-filter]").click()
    assert heading(1).endswith("30 of 30")
    choose("force_field_reason", "contains", "overlap")
    assert cards(molecule_page, 0) == cards(molecule_page, 1) == ["00000"]
    molecule_page.find_element(By.CSS_SELECTOR, "button[data-filter]").click()
    choose("sample_id", "contains", "0017")
    assert cards(molecule_page, 0) == cards(molecule_page, 1) == ["00017"]


def test_samples_of_one_draw_stand_side_by_side(molecule_page):
    molecule_page.find_element(By.CSS_SELECTOR, "[data-together]").click()
    press(molecule_page, "random")
    assert cards(molecule_page, 0) == cards(molecule_page, 1)
    assert len(cards(molecule_page, 0)) == 12
    press(molecule_page, "Show more")
    assert len(cards(molecule_page, 1)) == 30


def test_a_click_opens_and_turns_a_molecule(molecule_page, molecule_run, downloads):
    open_card(molecule_page, 1, "00003")
    assert turned(molecule_page) > 0.002
    numbers = molecule_page.find_element(By.CSS_SELECTOR, ".numbers [data-column=rms_force]").text
    [row] = [row for row in table_of(molecule_run, "trained") if row["sample_id"] == "00003"]
    assert numbers == f"rms force {row['rms_force']:.4g} eV/Å"
    written = (molecule_run / "evaluation" / "trained.sdf").read_text().split("$$$$\n")[3]
    assert file_text(molecule_page) == f"{written}$$$$\n"
    molecule = Chem.MolFromMolBlock(file_text(molecule_page), sanitize=False, removeHs=False)
    press(molecule_page, "XYZ")
    atoms = ase.io.read(io.StringIO(file_text(molecule_page)), format="extxyz")
    assert list(atoms.numbers) == [atom.GetAtomicNum() for atom in molecule.GetAtoms()]
    np.testing.assert_allclose(atoms.positions, molecule.GetConformer().GetPositions(), atol=1e-4)
    press(molecule_page, "Copy")
    status = molecule_page.find_element(By.CSS_SELECTOR, ".file [role=status]")
    WebDriverWait(molecule_page, PATIENCE).until(lambda _: status.text in {"copied", "it is selected: press Ctrl-C"})
    press(molecule_page, "Save")
    saved = downloads / "trained_00003.xyz"
    WebDriverWait(molecule_page, PATIENCE).until(lambda _: saved.is_file())
    assert saved.read_text() == file_text(molecule_page)
    press(molecule_page, "base")  # the sample of the same size and noise
    assert molecule_page.find_element(By.CSS_SELECTOR, "#viewer h2").text.startswith("base 00003")
    assert len(drawn(molecule_page))
    press(molecule_page, "Close")
    assert not molecule_page.find_element(By.ID, "viewer").is_displayed()


def test_a_click_opens_and_turns_a_crystal(crystal_page, crystal_run):
    assert cards(crystal_page, 1) == [f"{row:05d}" for row in range(8)]
    open_card(crystal_page, 1, "00001")
    assert turned(crystal_page) > 0.002
    once = drawn(crystal_page)
    press(crystal_page, "2×2×2")
    WebDriverWait(crystal_page, PATIENCE).until(lambda page: (drawn(page) != once).any())
    [crystal] = CifParser.from_str(file_text(crystal_page)).parse_structures(primitive=False)
    assert crystal.composition.reduced_formula == "SrTiO3"
    press(crystal_page, "XYZ")
    atoms = ase.io.read(io.StringIO(file_text(crystal_page)), format="extxyz")
    assert atoms.pbc.all()
    np.testing.assert_allclose(sorted(atoms.cell.lengths()), sorted(crystal.lattice.abc), atol=1e-4)
    scaled = atoms.get_scaled_positions(wrap=False) - crystal.frac_coords
    np.testing.assert_allclose(scaled - scaled.round(), 0, atol=1e-3)


def test_a_run_without_an_evaluation_says_so(driver, young_run):
    opened(driver, [young_run])
    assert "young has no evaluation yet" in driver.find_element(By.ID, "tables").text
    assert driver.find_elements(By.CSS_SELECTOR, "#training figure")
    assert complaints(driver) == []


def test_several_runs_stand_side_by_side(driver, molecule_run, crystal_run, young_run):
    opened(driver, [molecule_run, crystal_run, young_run])
    assert len(driver.find_elements(By.CSS_SELECTOR, "table.metrics")) == 2
    assert len(driver.find_elements(By.CSS_SELECTOR, ".side")) == 4
    figure = driver.find_element(By.CSS_SELECTOR, "figure[data-curve=reward]")
    assert len(figure.find_elements(By.CSS_SELECTOR, "path.mean")) == 3
    for at, said in ((-0.43, "0: 0 0 0"), (0.338, "25: 25 25")):  # the young run has five iterations
        driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", figure)
        svg = figure.find_element(By.TAG_NAME, "svg")
        wide = svg.rect["width"]
        ActionChains(driver).move_to_element_with_offset(svg, int(at * wide), 0).perform()
        assert figure.find_element(By.CSS_SELECTOR, "figcaption .quiet").text == said
    assert complaints(driver) == []
