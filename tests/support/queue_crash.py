"""Daemons that die in the middle of filling and draining queues, and what must then still be so."""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import trio

from persistence.fault_points import VARIABLE
from tests.persistence.sessions import opened
from tests.support.daemon_process import EndedEarly, open_daemon
from tests.support.queue_ledger import Ledger, live, settle
from tests.support.scripted_model import ScriptedModel

CLAIMED = "after a queue's commit:2"
"""Leaves a claimed row in a home with one thread: the first commit adds it, the second claims it."""


async def crash(
    folder: Path,
    model: ScriptedModel,
    ledgers: Sequence[Ledger],
    chance: random.Random,
    *,
    kill_at: str | None = None,
    kill_after: int | None = None,
    variables: Mapping[str, str] | None = None,
) -> bool:
    """Live until the daemon dies, is killed after so many messages, or the ledgers are through.

    Args:
        folder: as of ``open_daemon``.
        model: what the daemon asks.
        ledgers: one for each thread.
        chance: what the clients do.
        kill_at: the fault point at which the daemon dies, and the how manyeth time.
        kill_after: messages on the wire, of both directions.
        variables: more of the daemon's environment.

    Returns:
        Whether it died of itself, at its fault point.
    """
    environment = dict(variables or {}) | ({} if kill_at is None else {VARIABLE: kill_at})
    try:
        return await _crash(folder, model, ledgers, chance, kill_after, environment)
    except EndedEarly:
        # Recovery passes fault points, too.
        if kill_at is None:
            raise
        return True


async def _crash(
    folder: Path,
    model: ScriptedModel,
    ledgers: Sequence[Ledger],
    chance: random.Random,
    kill_after: int | None,
    environment: Mapping[str, str],
) -> bool:
    async with open_daemon(folder, model=model, variables=environment, check_messages=False) as daemon:
        left = kill_after

        def watch(message: Mapping[str, Any], came: bool) -> None:
            nonlocal left
            for ledger in ledgers:
                ledger.hear(message)
            if left is not None:
                left -= 1
                if left == 0:
                    daemon.ended = True
                    os.killpg(daemon.process.pid, signal.SIGKILL)

        daemon.client.watch = watch
        async with trio.open_nursery() as nursery:
            for ledger in ledgers:
                nursery.start_soon(live, daemon.client, model, ledger, random.Random(chance.random()))
        if not daemon.client.closed.is_set():
            await daemon.end(signal.SIGKILL)
            return False
        code = await daemon.process.wait()
        assert code == -signal.SIGKILL, "it died of something else"
        return not daemon.ended


async def check(
    folder: Path,
    model: ScriptedModel,
    ledgers: Sequence[Ledger],
    chance: random.Random,
    variables: Mapping[str, str] | None = None,
) -> None:
    """Everything is in its place in a daemon that lives, and stays there for the next."""
    async with open_daemon(folder, model=model, variables=variables) as daemon:
        for ledger in ledgers:
            await settle(daemon.client, model, ledger, chance)
    await check_rollouts(folder, ledgers)


async def check_rollouts(folder: Path, ledgers: Sequence[Ledger]) -> None:
    """The rollouts alone, without the index that grew with them, hold the turns that the daemon has shown."""
    alone = folder / "rollouts alone"
    shutil.rmtree(alone, ignore_errors=True)
    alone.mkdir()
    if (folder / "home" / "sessions").exists():
        shutil.copytree(folder / "home" / "sessions", alone / "sessions")
    async with opened(alone) as store:
        for ledger in ledgers:
            if ledger.shown:
                assert ledger.thread_id is not None
                turns = await store.all_turns(ledger.thread_id)
                held = [turn.model_dump(mode="json", by_alias=True) for turn in turns]
                for one, other in zip_longest(map(outline, held), map(outline, ledger.shown)):
                    assert one == other, f"{ledger.thread_id}: {one} in the rollout, {other} was shown"


def outline(turn: Mapping[str, Any]) -> tuple[str, str, list[str]]:
    """A turn, its end, and its items."""
    return turn["id"], turn["status"], [item["id"] for item in turn["items"]]
