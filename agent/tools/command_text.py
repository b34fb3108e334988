"""Commands as text: how an argv is shown, and what argv a shell text plainly is.

Showing follows the quoting rules that clients already know from the reference: a word is left bare where
that is safe, else put in single quotes, else in double quotes (a text that itself has single quotes).

Reading is deliberately timid. ``plain_argv`` only understands a text that is one simple command of literal
words; anything a shell would expand, redirect, chain or substitute is "not plain". What a user accepts as a
prefix is compared with this argv, so a text that could do more than its first words say must not have one.
"""

from __future__ import annotations

import string
from collections.abc import Sequence

_BARE = frozenset(string.ascii_letters + string.digits + "+-./:@]_")
_NOT_IN_SINGLE = frozenset("'^\\")
_NOT_IN_DOUBLE = frozenset("`$!^")
_ESCAPED_IN_DOUBLE = frozenset('$`"\\')

_SHELL_MEANING = frozenset(";|&<>()`$\n\r*?[]{}~#!\\")
"""Characters that mean something to a shell outside quotes (``=`` only in the first word)."""


def join_argv(argv: Sequence[str]) -> str:
    """One line that a shell would read back as ``argv``."""
    return " ".join(_quoted(word) for word in argv)


def plain_argv(text: str) -> list[str] | None:
    """The words of ``text`` if it is one simple command of literal words, else None."""
    words: list[str] = []
    word: str | None = None
    quote = ""
    assigned = False
    for char in text:
        if quote:
            if char == quote:
                quote = ""
            elif quote == '"' and char in "$`\\!":
                return None
            else:
                word = (word or "") + char
        elif char in "'\"":
            quote, word = char, word or ""
        elif char in " \t":
            if word is not None:
                words.append(word)
            word = None
        elif char in _SHELL_MEANING:
            return None
        else:
            assigned = assigned or (char == "=" and not words)
            word = (word or "") + char
    if quote or assigned:
        return None
    if word is not None:
        words.append(word)
    return words or None


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
