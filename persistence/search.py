"""Finding threads: listing them, and looking for them by what was said in them.

Every word of the term must occur in one message; the words are beginnings of words, in any order, and case
and accents do not matter. The term is never taken for a query language. Threads come in the order of the
list, each once, with a piece of its newest message that fits.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field

from persistence.home import Home
from persistence.scan import up_to_date
from persistence.search_index import THREAD_SHIFT
from persistence.thread_list import ThreadQuery, ThreadRecord, ThreadsPage, read_page
from persistence.writer import Writer

_LONGEST_TERM = 1000  # characters; what goes beyond is not looked at
_SNIPPET_WORDS = 24
_REPAIRS = 20  # times a page is read again because files of it are gone
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


def list_threads(
    connection: sqlite3.Connection, writer: Writer, home: Home, query: ThreadQuery
) -> ThreadsPage:
    """A page of threads whose files are there.

    Raises:
        InvalidRequest: the cursor is none of ours, or the sort key needs a section.
        StoreError: a file or the index cannot be read.
    """
    page = read_page(connection, home, query)
    for _ in range(_REPAIRS):
        gone = [record.id for record in page.records if not record.path.exists()]
        if not gone:
            break
        for thread_id in gone:
            # Moved or removed by somebody else: found again, or its row is dropped.
            up_to_date(connection, writer, home, thread_id)
        page = read_page(connection, home, query)
    return page


def find_threads(
    connection: sqlite3.Connection, writer: Writer, home: Home, query: ThreadQuery
) -> SearchPage:
    """A page of threads for the expression in ``query.matching``.

    Raises:
        InvalidRequest: the cursor is none of ours, or the sort key needs a section.
        StoreError: a file or the index cannot be read.
    """
    assert query.matching is not None
    page = list_threads(connection, writer, home, query)
    hits = [(record, _snippet(connection, record.id, query.matching)) for record in page.records]
    return SearchPage(hits, page.next_cursor, page.backwards_cursor)


def _snippet(connection: sqlite3.Connection, thread_id: str, matching: str) -> str:
    found = connection.execute("SELECT number FROM search_threads WHERE thread_id=?", (thread_id,)).fetchone()
    if found is None:
        return ""
    row = connection.execute(_NEWEST, (matching, found["number"], found["number"])).fetchone()
    return row[0] if row is not None else ""
