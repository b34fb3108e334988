"""The text that is searched: what users and agents said, by thread and item.

The full-text table knows rows by number alone. A row's number is made of its thread's number and the item's
ordinal, so a thread's rows lie together: they are found, and forgotten, by one range of numbers.
"""

from __future__ import annotations

from persistence.database import Operation

THREAD_SHIFT = 31
"""A row of ``search`` is ``number << THREAD_SHIFT | ordinal``."""
LONGEST_TEXT = 64 << 10
"""Bytes of UTF-8; what an item says beyond is not searched."""

# A bound that is NULL is none at all for the full-text table: a thread without number gets an empty range.
_FIRST = f"(coalesce((SELECT number FROM search_threads WHERE thread_id=?), -1) << {THREAD_SHIFT})"  # noqa: S608
_FORGET = f"DELETE FROM search WHERE rowid BETWEEN {_FIRST} AND {_FIRST} + {(1 << THREAD_SHIFT) - 1}"  # noqa: S608
_NUMBER = "INSERT INTO search_threads (thread_id) VALUES (?) ON CONFLICT (thread_id) DO NOTHING"
_ADD = (
    f"INSERT OR REPLACE INTO search (rowid, text) SELECT number << {THREAD_SHIFT} | ?, ? "  # noqa: S608
    f"FROM search_threads WHERE thread_id=? AND ? < {1 << THREAD_SHIFT}"
)


def forget_texts(thread_id: str) -> list[Operation]:
    """Take a thread out of the search."""
    return [
        (_FORGET, (thread_id, thread_id)),
        ("DELETE FROM search_threads WHERE thread_id=?", (thread_id,)),
    ]


def number_thread(thread_id: str) -> Operation:
    """Give the thread a number; before any of its texts."""
    return _NUMBER, (thread_id,)


def add_text(thread_id: str, ordinal: int, text: str) -> Operation:
    """Make what an item says searchable."""
    if len(text) > LONGEST_TEXT // 4:
        text = text.encode()[:LONGEST_TEXT].decode("utf-8", "ignore")
    # The tokenizer reads on after a NUL, the snippet does not.
    return _ADD, (ordinal, text.replace("\0", " "), thread_id, ordinal)


def message_text(kind: str, content: object) -> str:
    """What the ``content`` of a user's or an agent's message says; "" for items of other kinds."""
    if kind not in ("userMessage", "agentMessage", "commentary") or not isinstance(content, list):
        return ""
    parts = [part for part in content if isinstance(part, dict) and part.get("type") in ("text", "Text")]
    texts = [text for part in parts if isinstance(text := part.get("text"), str)]
    # SQLite stores UTF-8, which has no lone surrogates.
    joined = ("\n" if kind == "userMessage" else "").join(texts)
    return joined.encode("utf-8", "replace").decode()
