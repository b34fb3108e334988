"""A command's argv as one line of text, and back, as ``commandExecution.command`` shows it.

Words are quoted as the reference quotes them: bare where that is safe, else in single quotes, else in
double quotes, else in several pieces. ``split_command(join_command(argv)) == argv``.
"""

from __future__ import annotations

import string
from collections.abc import Sequence

_BARE = frozenset(string.ascii_letters + string.digits + "+-./:@]_")
_NOT_IN_SINGLE = frozenset("'^\\")
_NOT_IN_DOUBLE = frozenset("`$!^")
_ESCAPED_IN_DOUBLE = frozenset('$`"\\')
_BLANKS = frozenset(" \t\n\r")


def join_command(argv: Sequence[str]) -> str:
    """One line that a POSIX shell splits into ``argv`` again."""
    return " ".join(_quoted(word) for word in argv)


def split_command(text: str) -> list[str]:
    """The words of a line, nothing expanded; a line whose quotes do not match is one word."""
    words: list[str] = []
    word: str | None = None
    quote = ""
    chars = iter(text)
    for char in chars:
        if char == "\\" and quote != "'":
            following = next(chars, "")
            kept = "\\" if quote and following not in _ESCAPED_IN_DOUBLE else ""
            word = (word or "") + kept + following
        elif quote:
            if char == quote:
                quote = ""
            else:
                word = (word or "") + char
        elif char in "'\"":
            quote, word = char, word or ""
        elif char in _BLANKS:
            if word is not None:
                words.append(word)
            word = None
        else:
            word = (word or "") + char
    if quote:
        return [text]
    return words if word is None else [*words, word]


def _quoted(word: str) -> str:
    if not word:
        return "''"
    parts = []
    while word:
        length, style = _longest_chunk(word)
        chunk, word = word[:length], word[length:]
        if style == "bare":
            parts.append(chunk)
        elif style == "single":
            parts.append(f"'{chunk}'")
        else:
            escaped = "".join("\\" + char if char in _ESCAPED_IN_DOUBLE else char for char in chunk)
            parts.append(f'"{escaped}"')
    return "".join(parts)


def _longest_chunk(word: str) -> tuple[int, str]:
    """How much of ``word`` one style of quoting can hold, and which style that is."""
    bare = single = double = True
    length = 0
    for position, char in enumerate(word):
        if position == 0 and char == "^":
            # Bash expands a caret in odd places; right after an opening single quote it is safe.
            still = (False, True, False)
        else:
            still = (
                bare and char in _BARE,
                single and char not in _NOT_IN_SINGLE,
                double and char not in _NOT_IN_DOUBLE,
            )
        if not any(still):
            break
        bare, single, double = still
        length = position + 1
    return length, "bare" if bare else "single" if single else "double"
