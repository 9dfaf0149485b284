"""docs/keys.md is what the options say today."""

from pathlib import Path

from atomrl.finding.key_table import COMMAND, PARTS, page
from atomrl.util.options import Options

PAGE = Path(__file__).parents[2] / "docs" / "keys.md"


def test_the_table_of_keys_is_fresh():
    assert PAGE.read_text() == page(), f"docs/keys.md is stale: {COMMAND}"


def leaves(options: Options, prefix: str = "") -> list[str]:
    found = []
    for name, value in options:
        found += leaves(value, f"{prefix}{name}.") if isinstance(value, Options) else [f"{prefix}{name}"]
    return found


def test_every_key_has_a_row_with_a_meaning():
    for title, kind in PARTS.items():
        table = page().partition(f"## {title}\n")[2].partition("\n## ")[0]
        rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| `")]
        assert [row[0].strip("`") for row in rows] == leaves(kind())
        assert all(len(row) == 6 and row[5] for row in rows)
