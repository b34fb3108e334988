"""What argv a shell text plainly is; how an argv is shown, ``protocol.shell_text`` says.

Reading is deliberately timid. ``plain_argv`` only understands a text that is one simple command of literal
words; anything a shell would expand, redirect, chain or substitute is "not plain". What a user accepts as a
prefix is compared with this argv, so a text that could do more than its first words say must not have one.
"""

from __future__ import annotations

_SHELL_MEANING = frozenset(";|&<>()`$\n\r*?[]{}~#!\\")
"""Characters that mean something to a shell outside quotes (``=`` only in the first word)."""


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
