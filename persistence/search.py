"""Looking for threads by what was said in them.

Every word of the term must occur in one message; the words are beginnings of words, in any order, and case
and accents do not matter. The term is never taken for a query language. Threads come in the order of the
list, each once, with a piece of its newest message that fits.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field

from persistence.search_index import THREAD_SHIFT
from persistence.thread_list import ThreadRecord

_LONGEST_TERM = 1000  # characters; what goes beyond is not looked at
_SNIPPET_WORDS = 24
_NEWEST = (
    f"SELECT snippet(search, 0, '', '', '…', {_SNIPPET_WORDS}) FROM search WHERE search MATCH ? "  # noqa: S608
    f"AND rowid BETWEEN ? << {THREAD_SHIFT} AND (? + 1 << {THREAD_SHIFT}) - 1 ORDER BY rowid DESC LIMIT 1"
)


@dataclass(slots=True)
class SearchPage:
    """A page of threads and the pieces of text that were found; the cursors are those of a list."""

    hits: list[tuple[ThreadRecord, str]] = field(default_factory=list)
    next_cursor: str | None = None
    backwards_cursor: str | None = None


def expression(term: str) -> str:
    """The full-text expression for what somebody typed; one that nothing matches if no word is in it."""
    known = term[:_LONGEST_TERM].encode("utf-8", "ignore").decode().replace("\0", " ")
    # A word of signs alone would match nothing and hide what the others match.
    words = [word for word in known.split() if any(sign.isalnum() for sign in word)]
    return " ".join('"{}"*'.format(word.replace('"', '""')) for word in words) or '""'


def snippet(connection: sqlite3.Connection, thread_id: str, matching: str) -> str:
    """The piece to show for a thread; "" where nothing fits any more."""
    found = connection.execute("SELECT number FROM search_threads WHERE thread_id=?", (thread_id,)).fetchone()
    if found is None:
        return ""
    row = connection.execute(_NEWEST, (matching, found["number"], found["number"])).fetchone()
    return row[0] if row is not None else ""
