"""The mailbox by itself."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.mailbox import Mailbox
from protocol.errors import Overloaded

LATER = 1000.0


async def test_messages_come_in_the_order_they_were_put_whoever_put_them() -> None:
    mailbox: Mailbox[int] = Mailbox(10)
    mailbox.put(1)
    mailbox.put_always(2)
    await mailbox.post(3)
    mailbox.put(4)
    assert [await mailbox.get(LATER) for _ in range(4)] == [1, 2, 3, 4]


async def test_clients_are_refused_at_the_bound_and_the_daemon_is_not() -> None:
    mailbox: Mailbox[int] = Mailbox(2)
    mailbox.put(1)
    mailbox.put(2)
    with pytest.raises(Overloaded):
        mailbox.put(3)
    mailbox.put_always(4)
    assert mailbox.drain() == [1, 2, 4]
    mailbox.put(5)


async def test_a_turn_waits_for_room_and_keeps_its_order(nursery: trio.Nursery) -> None:
    mailbox: Mailbox[int] = Mailbox(2)

    async def turn() -> None:
        for number in range(10):
            await mailbox.post(number)

    nursery.start_soon(turn)
    await wait_all_tasks_blocked()
    assert len(mailbox) == 2
    assert [await mailbox.get(trio.current_time() + LATER) for _ in range(10)] == list(range(10))


async def test_everybody_who_waits_for_room_gets_it_when_the_mailbox_is_drained(
    nursery: trio.Nursery,
) -> None:
    mailbox: Mailbox[int] = Mailbox(1)
    mailbox.put(0)
    for number in (1, 2, 3):
        nursery.start_soon(mailbox.post, number)
    await wait_all_tasks_blocked()
    got = mailbox.drain()
    while len(got) < 4:
        message = await mailbox.get(trio.current_time() + LATER)
        assert message is not None
        got.append(message)
    assert sorted(got) == [0, 1, 2, 3]


async def test_a_post_that_is_cancelled_has_added_nothing() -> None:
    for full in (True, False):
        mailbox: Mailbox[int] = Mailbox(1)
        if full:
            mailbox.put(0)
        with trio.CancelScope() as scope:
            scope.cancel()
            await mailbox.post(1)
            raise AssertionError("a cancelled turn must hear of it where it posts")
        assert mailbox.drain() == ([0] if full else [])


async def test_waiting_ends_at_the_deadline_without_a_message(autojump_clock: MockClock) -> None:
    mailbox: Mailbox[int] = Mailbox()
    begun = trio.current_time()
    assert await mailbox.get(begun + 5) is None
    assert trio.current_time() == begun + 5


async def test_a_message_beats_the_deadline_even_when_both_have_come(mock_clock: MockClock) -> None:
    mailbox: Mailbox[int] = Mailbox()
    got: list[int | None] = []

    async def reader() -> None:
        got.append(await mailbox.get(trio.current_time() + 5))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader)
        await wait_all_tasks_blocked()
        mock_clock.jump(6)
        mailbox.put(1)
    assert got == [1]


async def test_no_wait_ends_without_a_message_while_one_is_there(autojump_clock: MockClock) -> None:
    left_waiting: list[int] = []
    got: list[int | None] = []

    async def reader(mailbox: Mailbox[int], deadline: float) -> None:
        message = await mailbox.get(deadline)
        got.append(message)
        if message is None:
            left_waiting.append(len(mailbox))

    async def sender(mailbox: Mailbox[int], deadline: float) -> None:
        await trio.sleep_until(deadline)
        mailbox.put(1)

    # Which of the two runs first in the instant of the deadline is chance.
    for _ in range(64):
        mailbox: Mailbox[int] = Mailbox()
        deadline = trio.current_time() + 5
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reader, mailbox, deadline)
            nursery.start_soon(sender, mailbox, deadline)
    assert set(got) == {1, None}
    assert set(left_waiting) == {0}


async def test_a_flood_lets_other_tasks_run() -> None:
    mailbox: Mailbox[int] = Mailbox()
    others = 0

    async def other() -> None:
        nonlocal others
        while True:
            others += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        for number in range(640):
            mailbox.put(number)
        for _ in range(640):
            await mailbox.get(LATER)
        nursery.cancel_scope.cancel()
    assert others >= 10
