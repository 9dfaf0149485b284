"""What is said of structures on which a force field raised an exception that nobody foresaw. No torch in here."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from atomrl.workers.executor import EXCEPTION

log = logging.getLogger(__name__)


class Exceptions:
    """Warns of them once: they cost their structures' scores, but point at a mistake.

    Args:
        name: of the force field.
        noun: of the structures.
    """

    def __init__(self, name: str, noun: str) -> None:
        self.name, self.noun, self._said = name, noun, False

    def note(self, reasons: Sequence[str | None]) -> None:
        """Look at the reasons of some structures, None where there is a result."""
        found = [reason for reason in reasons if reason is not None and reason.startswith(EXCEPTION)]
        if not found or self._said:
            return
        self._said = True
        log.warning(
            "%s raised an exception on %d of %d %s, which have no score; the first: %s",
            *(self.name, len(found), len(reasons), self.noun, found[0].removeprefix(EXCEPTION)),
        )
