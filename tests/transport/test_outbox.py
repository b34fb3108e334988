from __future__ import annotations

import json

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from actors.peer import Outgoing
from tests.transport.fakes import delta, note
from transport.outbox import Outbox


def fill(outbox: Outbox, size: int) -> None:
    outbox.put(Outgoing(b"x" * size, "turn/started"))


async def drain(outbox: Outbox) -> list[bytes]:
    out: list[bytes] = []
    while outbox.backlog:
        out += await outbox.take_batch()
        outbox.check_invariants()
    return out


async def test_messages_leave_in_the_order_they_came() -> None:
    outbox = Outbox()
    sent = [Outgoing(str(number).encode()) for number in range(1000)]
    for message in sent:
        outbox.put(message)
    assert await drain(outbox) == [message.data for message in sent]


async def test_a_client_that_keeps_up_gets_every_delta_as_it_was_made() -> None:
    outbox = Outbox()
    deltas = [delta(str(number)) for number in range(50)]
    for one in deltas:
        outbox.put(one)
    assert await drain(outbox) == [one.data for one in deltas]


async def test_deltas_of_one_item_merge_while_much_waits() -> None:
    outbox = Outbox(merge_above=64_000)
    fill(outbox, 70_000)
    for number in range(100):
        outbox.put(delta(f"{number}é ", at_ms=number, seq=number))
    outbox.check_invariants()
    assert len(outbox) == 2
    _, merged = await drain(outbox)
    message = json.loads(merged)
    assert message["method"] == "item/agentMessage/delta"
    assert message["params"]["delta"] == "".join(f"{number}é " for number in range(100))
    assert (message["emittedAtMs"], message["seq"]) == (99, 99)


async def test_a_long_delta_that_others_are_merged_into_is_no_longer_counted_as_one_message() -> None:
    outbox = Outbox(limit=1000, merge_above=100)
    fill(outbox, 200)
    outbox.put(delta("x" * 2000))
    outbox.put(delta("more"))
    assert len(outbox) == 2
    outbox.check_invariants()
    assert await drain(outbox)
    outbox.check_invariants()


async def test_only_neighbours_of_the_same_item_merge() -> None:
    outbox = Outbox(merge_above=64_000)
    fill(outbox, 70_000)
    for message in (delta("a"), delta("b", ("other",)), delta("c"), note("turn/completed"), delta("d")):
        outbox.put(message)
    assert len(await drain(outbox)) == 6


async def test_what_was_merged_takes_no_delta_of_another_item() -> None:
    outbox = Outbox(merge_above=64_000)
    fill(outbox, 70_000)
    for message in (delta("a"), delta("b"), delta("c", ("other",)), delta("d", ("other",))):
        outbox.put(message)
    outbox.check_invariants()
    _, *merged = await drain(outbox)
    assert [json.loads(each)["params"]["delta"] for each in merged] == ["ab", "cd"]


async def test_a_merged_message_does_not_grow_without_end() -> None:
    outbox = Outbox(merge_above=64_000)
    fill(outbox, 70_000)
    for _ in range(100):
        outbox.put(delta("x" * 10_000))
    sizes = [len(data) for data in await drain(outbox)]
    assert max(sizes) < 300_000
    assert sum(sizes) > 1_000_000


async def test_a_batch_is_bounded_but_a_long_message_leaves_whole() -> None:
    outbox = Outbox()
    for size in (100_000, 100_000, 100_000, 5_000_000, 10):
        fill(outbox, size)
    batches = []
    while outbox.backlog:
        batches.append([len(data) for data in await outbox.take_batch()])
    assert batches == [[100_000, 100_000], [100_000], [5_000_000], [10]]


async def test_taking_waits_for_a_message_and_gives_nothing_after_the_end(nursery: trio.Nursery) -> None:
    outbox = Outbox()
    taken: list[list[bytes]] = []

    async def take() -> None:
        while batch := await outbox.take_batch():
            taken.append(batch)
        taken.append([])

    nursery.start_soon(take)
    await trio.testing.wait_all_tasks_blocked()
    outbox.put(Outgoing(b"1"))
    await trio.testing.wait_all_tasks_blocked()
    outbox.put(Outgoing(b"2"))
    outbox.finish()
    outbox.put(Outgoing(b"too late"))
    await trio.testing.wait_all_tasks_blocked()
    assert taken == [[b"1"], [b"2"], []]


async def test_a_cancelled_take_has_taken_nothing() -> None:
    outbox = Outbox()
    with trio.CancelScope() as scope:
        scope.cancel()
        await outbox.take_batch()
    outbox.put(Outgoing(b"1"))
    assert await outbox.take_batch() == [b"1"]


async def test_who_waits_for_room_goes_on_when_there_is_room(nursery: trio.Nursery) -> None:
    outbox = Outbox(limit=1000)
    fill(outbox, 600)
    fill(outbox, 600)
    assert outbox.over_limit
    done = trio.Event()

    async def wait() -> None:
        await outbox.wait_below_limit()
        done.set()

    nursery.start_soon(wait)
    await trio.testing.wait_all_tasks_blocked()
    assert not done.is_set()
    await outbox.take_batch()
    with trio.fail_after(5):
        await done.wait()


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("delta"), st.sampled_from("ab"), st.text(max_size=300)),
            st.tuples(st.just("note"), st.just(""), st.text(max_size=300)),
            st.tuples(st.just("take"), st.just(""), st.just("")),
        ),
        max_size=60,
    ),
    st.integers(0, 2000),
)
def test_no_text_is_lost_doubled_or_reordered(steps: list[tuple[str, str, str]], merge_above: int) -> None:
    outbox = Outbox(limit=5000, merge_above=merge_above)
    wanted: list[tuple[str, str]] = []
    got: list[tuple[str, str]] = []

    def add(to: list[tuple[str, str]], key: str, text: str) -> None:
        if key and to and to[-1][0] == key:
            to[-1] = (key, to[-1][1] + text)
        else:
            to.append((key, text))

    async def run() -> None:
        for what, key, text in [*steps, ("take", "", "")]:
            if what == "delta":
                outbox.put(delta(text, (key,)))
                add(wanted, key, text)
            elif what == "note":
                outbox.put(note("turn/started", {"text": text}))
                add(wanted, "", text)
            else:
                for data in await drain(outbox):
                    params = json.loads(data)["params"]
                    if "delta" in params:
                        add(got, params["itemId"][2:-3], params["delta"])
                    else:
                        add(got, "", params["text"])
            outbox.check_invariants()

    trio.run(run)
    assert got == wanted


@pytest.mark.parametrize("drop", [True, False])
async def test_the_end_gives_what_waits_unless_it_is_dropped(drop: bool) -> None:
    outbox = Outbox()
    outbox.put(Outgoing(b"1"))
    outbox.finish(drop=drop)
    assert await outbox.take_batch() == ([] if drop else [b"1"])
