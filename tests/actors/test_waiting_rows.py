"""The rows of a queue as a value: they are what a plain list would be, and no value changes another."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, note
from hypothesis import strategies as st

from actors.queue_rows import Queue
from actors.shared_map import SharedMap
from actors.waiting_rows import WaitingRows
from persistence.queue import QueuedTurn
from tests.support.in_memory import replay_hint

NAMES = (None, "c1", "c2", "")


def row(row_id: str, order: int, client_id: str | None = None, text: str = "x") -> QueuedTurn:
    params: dict[str, Any] = {"input": [{"type": "text", "text": text}]}
    if client_id is not None:
        params["clientUserMessageId"] = client_id
    return QueuedTurn(row_id, params, order)


MOVE = st.tuples(
    st.sampled_from(["add", "first", "without", "replaced", "claimed", "reordered"]),
    st.integers(0, 30),
    st.sampled_from(NAMES),
)


@given(st.lists(MOVE, max_size=30))
def test_the_rows_are_those_of_a_plain_list_and_every_value_before_stays_what_it_was(
    moves: list[tuple[str, int, str | None]],
) -> None:
    queue, plain = Queue(), list[QueuedTurn]()
    history: list[tuple[Queue, list[QueuedTurn]]] = []
    for number, (move, pick, name) in enumerate(moves):
        note(f"{move} {pick} {name}")
        some = plain[pick % len(plain)] if plain else row("none", 0)
        match move:
            case "add":
                new = row(f"row-{number}", queue.next_order(), name)
                queue, plain = queue.with_row(new), [*plain, new]
            case "first":
                new = row(f"row-{number}", queue.first_order(), name)
                queue, plain = queue.with_row(new), [new, *plain]
            case "without":
                queue, plain = queue.without(some.id), [each for each in plain if each != some]
            case "replaced":
                new = row(some.id, some.order, name, "changed")
                queue = queue.replaced(new)
                plain = [new if each.id == new.id else each for each in plain]
            case "claimed" if plain:
                # The claim ends, and another row is the next.
                queue = replace(queue.claim(plain[0], "turn", "item", 1), claims=())
                plain = plain[1:]
            case "reordered":
                ids = [each.id for each in [*plain[pick:], *plain[:pick]]]
                changed = queue.reordered(ids)
                assert changed is not None
                assert [each.id for each in changed.rows] == ids
                queue, plain = changed, list(changed.rows)
        history.append((queue, plain))
        for then, were in history:
            assert list(then.rows) == were
            assert then.rows == WaitingRows(were)
            then.rows.check()
        for each in plain:
            assert queue.rows.find(each.id) is each
        for known in NAMES[1:]:
            assert known is not None
            first = next((each for each in plain if each.client_id == known), None)
            assert queue.rows.named(known) is first
        assert queue.rows.find("nobody") is None
        assert (len(queue.rows), bool(queue.rows)) == (len(plain), bool(plain))
        assert (queue.rows.first, queue.rows.last) == ((plain[0], plain[-1]) if plain else (None, None))
        for offset, limit in ((0, 2), (1, 2), (pick, 9), (len(plain), 1)):
            assert queue.rows.page(offset, limit) == plain[offset : offset + limit]


def test_a_row_that_is_not_there_can_be_taken_away_and_replaced_without_effect() -> None:
    rows = WaitingRows([row("a", 1), row("b", 2)])
    assert rows.without("c") is rows
    assert rows.replaced(row("c", 3)) is rows


def test_rows_are_reordered_only_all_of_them_and_to_numbers_that_none_has_or_had() -> None:
    queue = Queue(WaitingRows([row("a", -3), row("b", 2), row("c", 9)]))
    for wrong in (["a", "b"], ["a", "b", "b"], ["a", "b", "d"], ["a", "b", "c", "c"]):
        assert queue.reordered(wrong) is None
    turned = queue.reordered(["c", "a", "b"])
    assert turned is not None
    assert [(each.id, each.order) for each in turned.rows] == [("c", 10), ("a", 11), ("b", 12)]
    beside_a_claim = queue.claim(queue.rows.page(2, 1)[0], "turn", "item", 1).reordered(["b", "a"])
    assert beside_a_claim is not None
    assert [each.order for each in beside_a_claim.rows] == [10, 11]


@given(st.dictionaries(st.text(max_size=3), st.integers()), st.text(max_size=3))
def test_a_changed_mapping_leaves_the_one_before_alone(entries: dict[str, int], key: str) -> None:
    before = SharedMap(entries.items())
    more, less = before.having(key, 7), before.without(key)
    assert before.as_dict() == entries
    assert more.as_dict() == {**entries, key: 7}
    assert less.as_dict() == {each: value for each, value in entries.items() if each != key}
    assert (before.get(key), more.get(key), less.get(key)) == (entries.get(key), 7, None)


@pytest.mark.parametrize("seed", range(5))
def test_thousands_of_rows_are_those_of_a_plain_list_too(seed: int) -> None:
    chance = random.Random(seed)
    with replay_hint(seed=seed):
        orders = chance.sample(range(10_000), 1000)
        rows, plain = WaitingRows(), dict[int, QueuedTurn]()
        for order in orders:
            plain[order] = row(f"row-{order}", order, f"name {order % 700}")
            rows = rows.having(plain[order])
        rows.check()
        assert list(rows) == [plain[order] for order in sorted(plain)]
        for order in chance.sample(orders, 900):
            if chance.random() < 0.3:
                plain[order] = row(f"row-{order}", order, f"name {order % 500}", "changed")
                rows = rows.replaced(plain[order])
            else:
                rows = rows.without(plain.pop(order).id)
            known = chance.choice(orders)
            assert rows.find(f"row-{known}") is plain.get(known)
            expected = [plain[each] for each in sorted(plain)]
            offset = chance.randrange(len(expected) + 9)
            assert rows.page(offset, 70) == expected[offset : offset + 70]
        rows.check()
        assert list(rows) == [plain[order] for order in sorted(plain)]
        for order in list(plain):
            rows = rows.without(f"row-{order}")
        assert (rows, len(rows), rows.first, rows.last) == (WaitingRows(), 0, None, None)
        rows.check()
