"""A parser of command lines whose errors are one line; options and `key=value` words come in any order."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

OVERRIDES = "overrides"
"""What a command calls its `key=value` words."""


class CommandParser(argparse.ArgumentParser):
    """Says in one line what is wrong with the words of a command.

    Attributes:
        more_help: the words of the command -> what its help ends with.
    """

    more_help: Callable[[Sequence[str]], str] | None = None
    _words: Sequence[str] = ()

    def format_help(self) -> str:
        """As argparse, and what is to be said of the words."""
        more = "" if self.more_help is None else self.more_help(self._words)
        return super().format_help() + more

    def error(self, message: str) -> NoReturn:
        """End with exit code 2."""
        self.exit(2, f"error: {message}; {self.prog} --help lists what there is\n")

    def parse_known_args(self, args: Iterable[str] | None = None, namespace: Any = None) -> Any:
        """As argparse, but that the words of a command with `key=value` may stand in any order."""
        if args is not None and any(action.dest == OVERRIDES for action in self._actions):
            args = self._in_order(list(args))
        self._words = () if args is None else tuple(args)
        return super().parse_known_args(args, namespace)

    def _in_order(self, words: Sequence[str]) -> list[str]:
        """Words without an option first, `key=value` last among them; then the options with what belongs to them.

        argparse takes all words without an option from one place.
        """
        plain: list[str] = []
        pairs: list[str] = []
        options: list[str] = []
        rest = list(words)
        while rest:
            word = rest.pop(0)
            if _is_option(word):
                options.append(word)
                taken = self._belonging(word, rest)
                options += rest[:taken]
                del rest[:taken]
            else:
                (pairs if "=" in word else plain).append(word)
        return [*plain, *pairs, *options]

    def _belonging(self, option: str, rest: Sequence[str]) -> int:
        """How many of the words after an option belong to it."""
        name, has_value, _ = option.partition("=")
        action = self._option_string_actions.get(name) or next(
            (known for text, known in self._option_string_actions.items() if text.startswith(name)), None
        )
        if action is None or has_value or action.nargs == 0:
            return 0
        if action.nargs is None:
            return min(1, len(rest))
        ends = (place for place, word in enumerate(rest) if _is_option(word) or is_override(word))
        return next(ends, len(rest))


def _is_option(word: str) -> bool:
    """Whether a word is an option, and no negative number."""
    return word.startswith("-") and len(word) > 1 and not word[1].isdigit()


def is_override(word: str) -> bool:
    """Whether a word in a list of an option's is `section.key=value`, or `threads=4`, and meant for the configuration.

    A file may have such a name; a value that a model is asked for, `alpha=75.0`, has no section.
    """
    key, sign, _ = word.partition("=")
    return bool(sign) and ("." in key or key == "threads") and "/" not in key and not Path(word).exists()
