"""Hooks of MkDocs: links lead to the same place on the site as in the repository.

README.md is the first page. A file outside docs/ that a page links to becomes a page of its own, so that the site needs
no repository beside it; a notebook becomes a page, with its outputs.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from pathlib import Path

import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page
from nbconvert import MarkdownExporter
from pymdownx.slugs import slugify

ROOT = Path(__file__).parents[1]
DOCS = "docs"
NAMED = {"README.md": "index.md", "CHANGELOG.md": "changelog.md"}
"""Pages of files outside docs/ that have a place of their own; the others stand under `repository/`."""

LINK = re.compile(r"(\]\()([^)\s]+)(\))")
FENCED = re.compile(r"(^```.*?^```$)", flags=re.MULTILINE | re.DOTALL)
CELL = re.compile(r"<td.*?</td>", flags=re.DOTALL)
CODE_DOT = re.compile(r"(?<=[a-z])\.(?=[a-z_]+[^<>]*</code>)")
LANGUAGES = {".py": "python", ".yaml": "yaml", ".cff": "yaml", ".slurm": "bash"}

_sources: dict[str, str] = {}
"""{page: the file of the repository that it shows}, of pages that are no file of docs/."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Make anchors as GitHub makes them."""
    config.mdx_configs.setdefault("toc", {})["slugify"] = slugify(case="lower")
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of notebooks, of the README and of all files outside docs/ that are linked to."""
    _sources.clear()
    for file in list(files):
        if file.src_uri.endswith(".ipynb"):
            _add_notebook(file, files, config)
    texts = {f"{DOCS}/{file.src_uri}": file.content_string for file in files if file.is_documentation_page()}
    waiting = [*NAMED, *(path for source, text in texts.items() for path in linked(text, source))]
    while waiting:
        source = waiting.pop()
        uri = page_of(source)
        if source.startswith(f"{DOCS}/") or uri in _sources:
            continue
        text = (ROOT / source).read_text(encoding="utf-8")
        if source.endswith(".md"):
            waiting += linked(text, source)
        else:
            text = f"# {posixpath.basename(source)}\n\n`{source}`\n\n{_fenced(text, Path(source).suffix)}"
        inclusion = InclusionLevel.UNDEFINED if source in NAMED else InclusionLevel.NOT_IN_NAV
        _sources[uri] = source
        files.append(File.generated(config, uri, content=text, inclusion=inclusion))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links between files of the repository into links between pages."""
    uri = page.file.src_uri
    return with_links(markdown, _sources.get(uri, f"{DOCS}/{uri}"), uri)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Make tables readable: keys break at their dots, and an escaped `|` in code has no backslash, as on GitHub."""
    return CELL.sub(lambda cell: CODE_DOT.sub(".<wbr>", cell[0].replace(r"\|", "|")), html)


def linked(markdown: str, source: str) -> list[str]:
    """The files of the repository that a file links to; both are paths from its root."""
    targets = [match[2].partition("#")[0] for part in _prose(markdown).values() for match in LINK.finditer(part)]
    return [path for target in targets if (path := _resolved(target, source)) is not None]


def with_links(markdown: str, source: str, uri: str) -> str:
    """The text of `source` with its links made for the page `uri`; links that lead to no file stay as they are."""

    def changed(match: re.Match[str]) -> str:
        target, hash_sign, anchor = match[2].partition("#")
        path = _resolved(target, source)
        if path is None:
            return match[0]
        there = posixpath.relpath(page_of(path), posixpath.dirname(uri) or ".")
        return f"{match[1]}{there}{hash_sign}{anchor}{match[3]}"

    prose = _prose(markdown)
    parts = FENCED.split(markdown)
    return "".join(LINK.sub(changed, part) if place in prose else part for place, part in enumerate(parts))


def page_of(path: str) -> str:
    """The page, or the file of the site, that shows a file of the repository."""
    inside = path.removeprefix(f"{DOCS}/")
    if inside != path:
        return inside.removesuffix(".ipynb") + ".md" if inside.endswith(".ipynb") else inside
    return NAMED.get(path, f"repository/{path}" if path.endswith(".md") else f"repository/{path}.md")


def _resolved(target: str, source: str) -> str | None:
    """The file that a link leads to, as a path from the repository's root; None if it leads to none."""
    if not target or ":" in target:
        return None
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
    return path if (ROOT / path).is_file() else None


def _prose(markdown: str) -> Mapping[int, str]:
    """What is no fenced block, by its place among the parts that `FENCED` cuts a text into."""
    return {place: part for place, part in enumerate(FENCED.split(markdown)) if not part.startswith("```")}


def _fenced(text: str, suffix: str) -> str:
    return f"````{LANGUAGES.get(suffix, 'text')}\n{text.rstrip()}\n````\n"


def _add_notebook(file: File, files: Files, config: MkDocsConfig) -> None:
    """Add the page of a notebook, and the pictures among its outputs; the notebook itself can be downloaded."""
    name = posixpath.basename(file.src_uri)
    stem = file.src_uri.removesuffix(".ipynb")
    notebook = nbformat.reads(file.content_string, as_version=4)
    body, resources = MarkdownExporter().from_notebook_node(
        notebook, {"unique_key": posixpath.basename(stem), "output_files_dir": posixpath.basename(stem)}
    )
    for path, picture in resources["outputs"].items():
        place = posixpath.join(posixpath.dirname(stem), path)
        files.append(File.generated(config, place, content=picture, inclusion=InclusionLevel.NOT_IN_NAV))
    title, _, rest = body.lstrip().partition("\n")
    download = f'<a href="{name}" download>Download this page as a notebook</a>'
    files.append(File.generated(config, f"{stem}.md", content=f"{title}\n\n{download}\n{rest}"))
    _sources[f"{stem}.md"] = f"{DOCS}/{file.src_uri}"
