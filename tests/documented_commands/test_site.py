"""The site that `make docs` builds: complete, without a dead link, and nothing in it is loaded from elsewhere."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
SETTINGS = ROOT / "mkdocs.yml"
GENERATED = {"index.md": "README.md", "changelog.md": "CHANGELOG.md"}
NOWHERE = "http://127.0.0.1:9"


class Page(HTMLParser):
    """What a page links to, what a browser loads with it, and the anchors that it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value for name, value in attrs if value is not None}
        self.anchors |= {found[name] for name in ("id", "name") if name in found}
        self.loaded += [found[name] for name in ("src", "srcset", "data", "poster") if name in found]
        if "href" in found:
            (self.links if tag == "a" else self.loaded).append(found["href"])


def build(settings: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """`make docs`, where no network can be reached."""
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), NOWHERE)
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(settings), "-d", str(site)]
    return subprocess.run(words, env={**os.environ, **nowhere}, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = build(SETTINGS, folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path.read_text()) for path in site.rglob("*.html") if path.name != "404.html"}


def entries(nav: list) -> list[str]:
    """The pages of a navigation, in order."""
    values = [value for entry in nav for value in (entry.values() if isinstance(entry, dict) else [entry])]
    return [page for value in values for page in (entries(value) if isinstance(value, list) else [value])]


def test_every_page_is_in_the_navigation_once() -> None:
    """Each file of docs/ that is a page, the README and the changelog."""
    listed = entries(yaml.safe_load(SETTINGS.read_text())["nav"])
    there = [path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")]
    there += [path.relative_to(DOCS).with_suffix(".md").as_posix() for path in DOCS.glob("tutorials/*.ipynb")]
    assert sorted(listed) == sorted([*there, *GENERATED])


@pytest.mark.slow
def test_every_link_of_the_site_leads_somewhere(site: Path, pages: dict[Path, Page]) -> None:
    """Links between pages, with their anchors, pictures and style sheets."""
    dead = []
    for path, page in pages.items():
        for target in {*page.links, *page.loaded}:
            if re.match(r"(https?|mailto|data):", target):
                continue
            name, _, anchor = target.partition("#")
            there = (path.parent / unquote(name)).resolve() if name else path
            there = there / "index.html" if there.is_dir() else there
            if not there.exists() or (anchor and unquote(anchor) not in pages[there].anchors):
                dead.append(f"{path.relative_to(site)}: {target}")
    assert dead == []


@pytest.mark.slow
def test_links_of_the_readme_lead_to_pages(site: Path, pages: dict[Path, Page]) -> None:
    """To those of docs/, and to files outside it, which the site shows."""
    first = pages[site / "index.html"]
    assert {"molecules.html", "picture.svg", "repository/examples/python_side.py.html"} <= {*first.links, *first.loaded}
    summary = (ROOT / "examples" / "python_side.py").read_text().splitlines()[0].strip('"')
    assert summary in (site / "repository" / "examples" / "python_side.py.html").read_text()


@pytest.mark.slow
def test_a_bar_in_the_code_of_a_table_has_no_backslash(site: Path) -> None:
    text = (site / "keys.html").read_text()
    assert "<td><code>str | null</code></td>" in text
    assert r"\|" not in text


@pytest.mark.slow
def test_a_page_loads_nothing_from_elsewhere(site: Path, pages: dict[Path, Page]) -> None:
    """Fonts, scripts, style sheets and pictures are the site's own."""
    foreign = {target for page in pages.values() for target in page.loaded if re.match(r"(https?:)?//", target)}
    for sheet in site.rglob("*.css"):
        foreign |= set(re.findall(r"url\(['\"]?((?:https?:)?//[^)]*)\)", sheet.read_text()))
    assert foreign == set()


@pytest.mark.slow
def test_the_reference_is_made_from_docstrings(site: Path) -> None:
    text = (site / "reference" / "core.html").read_text()
    assert 'id="atomrl.core.records.Structures"' in text
    assert "atomic numbers, (B, N) int64, 0 where padded" in text
    assert 'id="atomrl.testing.check_policy"' in (site / "reference" / "testing.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[a page](no-such-page.md)", "no-such-page.md"),
        ("[a heading](index.md#no-such-heading)", "no-such-heading"),
        ("::: atomrl.core.no_such_module", "no_such_module"),
    ],
)
def test_a_mistake_of_a_page_ends_the_build(tmp_path: Path, text: str, complaint: str) -> None:
    """With the settings of the site, but for its pages."""
    settings = yaml.safe_load(SETTINGS.read_text())
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text(f"# A page\n\n{text}\n")
    settings |= {"nav": ["index.md"], "hooks": []}
    settings["plugins"][1]["mkdocstrings"]["handlers"]["python"]["paths"] = [str(ROOT / "src")]
    (tmp_path / "mkdocs.yml").write_text(yaml.safe_dump(settings))
    done = build(tmp_path / "mkdocs.yml", tmp_path / "site")
    assert done.returncode != 0
    assert complaint in done.stderr
