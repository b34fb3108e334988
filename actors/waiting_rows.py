"""The rows of a queue that wait, as a value: in their order, and found by id without going through them.

A queue may hold tens of thousands, and every step that touches it makes another value, because the old one
stays in force if the step cannot be committed. So a value is made of parts: blocks of rows, and indexes in
parts as well. A change makes one block and the list of blocks anew and shares all the rest.

Rejected: one tuple of all rows. Copying 10,000 takes 0.04 ms, but a tuple that has just been made is young
for the garbage collector, which then looks at every row in it, perhaps several times in a step.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from itertools import accumulate, chain, islice

from actors.shared_map import SharedMap
from persistence.queue import QueuedTurn

BLOCK = 64
"""Rows in a block, until more come between them; twice as many are split."""

_Block = tuple[QueuedTurn, ...]
_Names = SharedMap[tuple[str, ...]]


class WaitingRows:
    """Rows by order. Nothing changes it.

    A look-up, the ends, a page and a change cost the same for any number; making one from rows, and going
    through it, takes all of them.
    """

    # Invariants (``check``): orders strictly grow through the blocks; no block is empty or has more than
    # twice ``BLOCK`` rows; ``_orders`` has the order of each row by its id, ``_named`` the ids of the rows of
    # each client id in any order, and neither has anything else.
    __slots__ = ("_blocks", "_count", "_named", "_orders")

    def __init__(self, rows: Iterable[QueuedTurn] = ()) -> None:
        """``rows``: in their order, each id once."""
        every = tuple(rows)
        self._count = len(every)
        self._blocks: tuple[_Block, ...] = tuple(every[at : at + BLOCK] for at in range(0, len(every), BLOCK))
        self._orders = SharedMap((row.id, row.order) for row in every)
        named: dict[str, tuple[str, ...]] = {}
        for row in every:
            if (client_id := row.client_id) is not None:
                named[client_id] = (*named.get(client_id, ()), row.id)
        self._named: _Names = SharedMap(named.items())

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[QueuedTurn]:
        return chain.from_iterable(self._blocks)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, WaitingRows) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"WaitingRows({list(self)!r})"

    @property
    def first(self) -> QueuedTurn | None:
        """The head."""
        return self._blocks[0][0] if self._blocks else None

    @property
    def last(self) -> QueuedTurn | None:
        """The row behind all others."""
        return self._blocks[-1][-1] if self._blocks else None

    def page(self, offset: int, limit: int) -> list[QueuedTurn]:
        """At most ``limit`` rows, without the first ``offset``."""
        ends = list(accumulate(map(len, self._blocks)))
        block = bisect_right(ends, offset)
        skipped = offset - (ends[block - 1] if block else 0)
        return list(islice(chain.from_iterable(self._blocks[block:]), skipped, skipped + limit))

    def find(self, row_id: str) -> QueuedTurn | None:
        """The row of that id."""
        order = self._orders.get(row_id)
        if order is None:
            return None
        block, at = self._place(order)
        return self._blocks[block][at]

    def named(self, client_id: str) -> QueuedTurn | None:
        """The first row of that client id; an update may have given one to several."""
        found = [self.find(row_id) for row_id in self._named.get(client_id) or ()]
        return min((row for row in found if row is not None), key=_order, default=None)

    def having(self, row: QueuedTurn) -> WaitingRows:
        """With one more row, at the place its order says."""
        block, at = self._place(row.order)
        before = self._blocks[block] if self._blocks else ()
        blocks = self._with_block(block, (*before[:at], row, *before[at:]))
        orders = self._orders.having(row.id, row.order)
        return _made(blocks, self._count + 1, orders, _with_name(self._named, row))

    def without(self, row_id: str) -> WaitingRows:
        """Without the row of that id; as it is where there is none."""
        row = self.find(row_id)
        if row is None:
            return self
        block, at = self._place(row.order)
        before = self._blocks[block]
        blocks = self._with_block(block, before[:at] + before[at + 1 :])
        orders = self._orders.without(row_id)
        return _made(blocks, self._count - 1, orders, _without_name(self._named, row))

    def replaced(self, row: QueuedTurn) -> WaitingRows:
        """The row of the same id and order as it is now; as it is where there is none."""
        was = self.find(row.id)
        if was is None:
            return self
        assert row.order == was.order, "a row's place changes by a reorder only"
        block, at = self._place(row.order)
        before = self._blocks[block]
        blocks = self._with_block(block, (*before[:at], row, *before[at + 1 :]))
        named = self._named
        if row.client_id != was.client_id:
            named = _with_name(_without_name(named, was), row)
        return _made(blocks, self._count, self._orders, named)

    def check(self) -> None:
        """Raise AssertionError where an invariant is broken. Goes through all rows."""
        orders = [row.order for row in self]
        assert orders == sorted(set(orders)), f"two rows have one order, or stand in another: {orders}"
        assert all(0 < len(block) <= 2 * BLOCK for block in self._blocks), "a block is empty or too long"
        assert self._count == len(orders), "the count is wrong"
        assert self._orders.as_dict() == {row.id: row.order for row in self}, "the index by id is wrong"
        named = {(row.client_id, row.id) for row in self if row.client_id is not None}
        found = [(name, row_id) for name, row_ids in self._named.as_dict().items() for row_id in row_ids]
        assert sorted(found) == sorted(named), "the index by client id is wrong"

    def _place(self, order: int) -> tuple[int, int]:
        """Where a row of that order is, or would be: the block, and the place in it."""
        block = max(0, bisect_right(self._blocks, order, key=_first_order) - 1)
        return block, bisect_left(self._blocks[block], order, key=_order) if self._blocks else 0

    def _with_block(self, at: int, block: _Block) -> tuple[_Block, ...]:
        """The blocks with this one in the place of that; a long one in two, an empty one not at all."""
        if len(block) > 2 * BLOCK:
            return (*self._blocks[:at], block[:BLOCK], block[BLOCK:], *self._blocks[at + 1 :])
        return (*self._blocks[:at], *([block] if block else []), *self._blocks[at + 1 :])


def _made(blocks: tuple[_Block, ...], count: int, orders: SharedMap[int], named: _Names) -> WaitingRows:
    """Of parts that belong together."""
    made = WaitingRows.__new__(WaitingRows)
    made._blocks, made._count, made._orders, made._named = blocks, count, orders, named
    return made


def _order(row: QueuedTurn) -> int:
    return row.order


def _first_order(block: _Block) -> int:
    return block[0].order


def _with_name(named: _Names, row: QueuedTurn) -> _Names:
    if row.client_id is None:
        return named
    return named.having(row.client_id, (*(named.get(row.client_id) or ()), row.id))


def _without_name(named: _Names, row: QueuedTurn) -> _Names:
    if row.client_id is None:
        return named
    others = tuple(each for each in named.get(row.client_id) or () if each != row.id)
    return named.having(row.client_id, others) if others else named.without(row.client_id)
