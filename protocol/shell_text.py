"""A command's argv as one line of text, and back, as ``commandExecution.command`` shows it.

Words are quoted as the reference quotes them: single quotes unless the word holds one, then double
quotes where nothing inside them would need escaping. ``split_command(join_command(argv)) == argv``.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

_ACTIVE_IN_DOUBLE_QUOTES = frozenset('"$`\\!')


def join_command(argv: Sequence[str]) -> str:
    """One line that a POSIX shell splits into ``argv`` again."""
    return " ".join(_quote(word) for word in argv)


def split_command(text: str) -> list[str]:
    """The words of a line; a line no shell could split is one word."""
    try:
        return shlex.split(text)
    except ValueError:
        return [text]


def _quote(word: str) -> str:
    if "'" in word and not _ACTIVE_IN_DOUBLE_QUOTES.intersection(word):
        return f'"{word}"'
    return shlex.quote(word)
