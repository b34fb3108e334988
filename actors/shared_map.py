"""A mapping as a value: a changed one is another object, and costs the same however large it is.

A step's new state may never come true (its commit can fail), so what it is made of must not change in place.
Copying a dict of 10,000 entries for each change would be most of the step. So the entries are spread over a
fixed number of parts by their hash; a change copies one part, and shares the others with the map before it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

V = TypeVar("V")

PARTS = 64
"""A power of two. More make a change of a large map cheaper and one of a small map dearer."""


class SharedMap(Generic[V]):
    """Texts to values. Nothing changes it."""

    # Invariant: ``PARTS`` dicts, a key only in the one of its hash; no dict changes once it is in here.
    __slots__ = ("_parts",)

    def __init__(self, entries: Iterable[tuple[str, V]] = ()) -> None:
        # Empty parts are one dict: most threads have an empty queue, and that must not cost them much.
        empty: dict[str, V] = {}
        parts = [empty] * PARTS
        for key, value in entries:
            at = hash(key) % PARTS
            if parts[at] is empty:
                parts[at] = {}
            parts[at][key] = value
        self._parts = tuple(parts)

    def get(self, key: str) -> V | None:
        """The value of that key, None where there is none."""
        return self._parts[hash(key) % PARTS].get(key)

    def having(self, key: str, value: V) -> SharedMap[V]:
        """The map with that value for that key."""
        part = self._parts[hash(key) % PARTS]
        return self._changed(key, {**part, key: value})

    def without(self, key: str) -> SharedMap[V]:
        """The map without that key, which it need not have."""
        part = self._parts[hash(key) % PARTS].copy()
        part.pop(key, None)
        return self._changed(key, part)

    def as_dict(self) -> dict[str, V]:
        """All entries, in no particular order."""
        return {key: value for part in self._parts for key, value in part.items()}

    def _changed(self, key: str, part: dict[str, V]) -> SharedMap[V]:
        at = hash(key) % PARTS
        changed: SharedMap[V] = SharedMap.__new__(SharedMap)
        changed._parts = (*self._parts[:at], part, *self._parts[at + 1 :])
        return changed
