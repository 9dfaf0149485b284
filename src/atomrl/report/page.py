"""A report as one HTML file that needs nothing else: styles, scripts, 3Dmol.js and all data are in it.

The data are JSON, deflated, in base64: no text of a user's ever stands in the page's own markup but the title, which is
escaped, and the scripts put texts into the page as text. A content security policy lets the page load nothing and run
no script but its own, which it names by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import zlib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

SCRIPTS = ("dom.js", "structure.js", "tables.js", "curves.js", "histograms.js", "viewer.js", "samples.js", "page.js")
"""In this order they are one script."""

LIBRARY = "3Dmol-min.js"

MARK = re.compile(r"<!-- \{(\w+)\} -->")
"""Where the template takes a part."""


def page(title: str, data: Mapping[str, Any]) -> str:
    """The whole file.

    Args:
        title: of the page.
        data: that the scripts show, as JSON has it; what it holds stands in `report.report`.
    """
    script = "".join(_asset("report", name) for name in SCRIPTS)
    library = _asset("3dmol", LIBRARY)
    hashes = " ".join(f"'sha256-{_sha256(text)}'" for text in (library, script))
    parts = {
        "title": html.escape(title),
        "policy": f'<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; script-src {hashes}; '
        "style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'\">",
        "styles": f"<style>\n{_asset('report', 'report.css')}</style>",
        "data": f'<script type="text/plain" id="data">{packed(data)}</script>',
        "library": f"<script>{library}</script>",
        "script": f"<script>{script}</script>",
    }
    return MARK.sub(lambda found: parts[found[1]], _asset("report", "page.html"))


def packed(data: Mapping[str, Any]) -> str:
    """JSON, deflated, in base64."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode()


def unpacked(text: str) -> dict[str, Any]:
    """The data of a page."""
    _, _, rest = text.partition('id="data">')
    data: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(rest.partition("<")[0])))
    return data


@cache
def _asset(folder: str, name: str) -> str:
    """The text of a file that ships."""
    return (files("atomrl") / "assets" / folder / name).read_text("utf-8")


def _sha256(text: str) -> str:
    """As a content security policy has it."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
