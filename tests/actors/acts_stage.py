"""A thread in any state with three clients around it, and the checker that all views of it agree.

``owner`` started the thread and is subscribed, ``other`` is subscribed too, ``mere`` is only connected.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from typing import Any

import trio
import trio.testing

from actors.acts import Act
from actors.archiving import Archive
from actors.catalogue import Catalogue
from actors.messages import Leave
from agent.events import ItemStarted
from agent.prompt import completed_message
from persistence.store import Batch
from protocol.errors import RpcError
from protocol.thread_methods import LoadedListParams, ThreadListParams, ThreadReadParams
from tests.actors.stage import Stage, says
from tests.support.in_memory import PuppetTurn, RecordingPeer, RecordingReply

UNKNOWN = "01a1f8e9-ee21-7cc3-87b6-578ab84f94e3"
STATES = ("fresh", "idle", "failed", "running", "ephemeral", "unloaded", "archived", "unknown")


async def takes(turn: PuppetTurn) -> None:
    """The turn takes its user messages, as a real one does first."""
    for submission in turn.job.submissions:
        event = await completed_message(submission, 1)
        await turn.post(ItemStarted(event.item))
        await turn.post(event)


class Scene:
    """Attributes: ``turn`` is the puppet of the running turn, where one runs."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.owner, self.other, self.mere = stage.peer(), stage.peer(), stage.peer()
        self.catalogue = Catalogue(stage.store, stage.supervisor)
        self.turn: PuppetTurn | None = None
        self.turn_id = ""
        self._marks: dict[int, int] = {}

    @property
    def peers(self) -> tuple[RecordingPeer, RecordingPeer, RecordingPeer]:
        return self.owner, self.other, self.mere

    async def thread(self, state: str) -> str:
        """A thread in that state; what was sent until then does not count for ``news``."""
        thread_id = UNKNOWN
        if state != "unknown":
            thread_id = await self._make(state)
        await self.agree(thread_id)
        self.mark()
        return thread_id

    async def _make(self, state: str) -> str:
        stage = self.stage
        thread_id = await stage.start(self.owner, ephemeral=state == "ephemeral")
        if state in ("fresh", "ephemeral"):
            return thread_id
        await self.whole_turn(self.owner, thread_id, "the first answer")
        await stage.resume(self.other, thread_id).answer()
        match state:
            case "running":
                self.turn_id, self.turn = await stage.begin(self.owner, thread_id)
                await takes(self.turn)
                await stage.handled(thread_id)
            case "failed":
                _, turn = await stage.begin(self.owner, thread_id)
                turn.end(RuntimeError("for the test"))
                await self.mere.until(lambda _: self.told(thread_id) == "systemError")
            case "unloaded":
                await self.unload(thread_id)
            case "archived":
                await self.act(self.owner, thread_id, Archive()).answer()
                await self.gone(thread_id)
        return thread_id

    async def whole_turn(self, peer: RecordingPeer, thread_id: str, answer: str = "hi") -> str:
        """A turn that takes its message, answers and ends; the peer is subscribed."""
        ended = len(peer.params("turn/completed"))
        turn_id, turn = await self.stage.begin(peer, thread_id)
        await takes(turn)
        await says(turn, f"msg-{turn_id}", answer)
        turn.end()
        await peer.got("turn/completed", ended + 1)
        return turn_id

    async def unload(self, thread_id: str) -> None:
        """As when another thread's act puts it away."""
        actor = self.stage.actor(thread_id)
        actor.mailbox.put_always(Leave())
        await actor.finished.wait()

    async def gone(self, thread_id: str) -> None:
        """Wait until no actor serves the thread, quiet ones included."""
        while (actor := self.stage.supervisor.loaded(thread_id)) is not None:
            await actor.finished.wait()
            await trio.testing.wait_all_tasks_blocked()

    def act(self, peer: RecordingPeer, thread_id: str, act: Act, noun: str = "thread") -> RecordingReply:
        """As a handler does it."""
        reply = peer.reply()
        try:
            self.stage.supervisor.perform(thread_id, act, reply, noun)
        except RpcError as error:
            reply.error(error)
        return reply

    # -- what came ---------------------------------------------------------------------------------------

    def mark(self) -> None:
        """What has come so far is no news any more."""
        self._marks = {peer.id: len(peer.log) for peer in self.peers}

    def news(self, peer: RecordingPeer) -> list[str]:
        """What came since the mark: methods, with the status of a status change, in order."""
        found = []
        for entry in peer.log[self._marks.get(peer.id, 0) :]:
            name = entry.get("method") or ("error" if "error" in entry else "result")
            if name == "thread/status/changed":
                name = f"status {entry['params']['status']['type']}"
            found.append(name)
        return found

    def told(self, thread_id: str) -> str:
        """The status that everybody was told last."""
        statuses = self._statuses(thread_id)
        return statuses[-1]["type"] if statuses else "notLoaded"

    def _statuses(self, thread_id: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for entry in self.mere.log:
            params = entry.get("params", {})
            if entry.get("method") == "thread/started" and params["thread"]["id"] == thread_id:
                found.append(params["thread"]["status"])
            elif entry.get("method") == "thread/status/changed" and params["threadId"] == thread_id:
                found.append(params["status"])
        return found

    # -- the checker -------------------------------------------------------------------------------------

    async def read(self, thread_id: str, *, turns: bool = False) -> dict[str, Any]:
        """thread/read, loaded or not."""
        reply = RecordingPeer(0).reply()
        params = ThreadReadParams(thread_id=thread_id, include_turns=turns)
        result = await self.catalogue.read(params, reply)
        if result is not None:
            reply.result(result)
        found: dict[str, Any] = await reply.answer()
        return found

    async def listed(self, *, archived: bool = False) -> dict[str, dict[str, Any]]:
        """thread/list, by id."""
        page = await self.catalogue.list_threads(ThreadListParams(archived=archived, limit=100))
        return {row.id: row.to_wire() for row in page.data}

    def where(self, thread_id: str) -> str:
        """Which folder has the thread's rollout: ``sessions``, ``archived`` or, for none, ``""``."""
        home = self.stage.home
        found = [
            name
            for name, folder in (("sessions", home.sessions), ("archived", home.archived_sessions))
            if folder.exists() and any(folder.rglob(f"*{thread_id}*.jsonl"))
        ]
        assert len(found) <= 1, f"the rollout of {thread_id} is in both folders"
        return "".join(found)

    async def agree(self, thread_id: str) -> str:
        """Everything that tells a status tells the same; none was told twice in a row. Gives the status."""
        told, statuses = self.told(thread_id), self._statuses(thread_id)
        assert all(one != next_one for one, next_one in pairwise(statuses)), f"told twice: {statuses}"
        loaded = self.catalogue.loaded_list(LoadedListParams()).data
        assert (thread_id in loaded) == (told != "notLoaded"), f"{told}, and loaded/list has {loaded}"
        status: str | None = None
        thread: dict[str, Any] = {}
        with suppress(RpcError):
            thread = (await self.read(thread_id))["thread"]
            status = thread["status"]["type"]
        where = self.where(thread_id)
        assert (status is None) == (where == "" and told == "notLoaded"), (
            f"read says {status}, on disk {where}"
        )
        assert status in (None, told), f"read says {status}, told was {told}"
        active, archived = await self.listed(), await self.listed(archived=True)
        assert (thread_id in archived) == (where == "archived")
        assert thread_id not in active or where == "sessions"
        if thread.get("preview") and where == "sessions":
            assert thread_id in active
        for row in (active.get(thread_id), archived.get(thread_id)):
            if row is not None:
                assert row["status"]["type"] == told
                same = ("id", "name", "path", "preview", "cwd", "model", "gitInfo", "createdAt", "recencyAt")
                assert {key: row[key] for key in same} == {key: thread[key] for key in same}
        return told


class CommitGate:
    """Holds the commits that ``held`` picks: ``reached`` when the first is there, until ``open``."""

    def __init__(self, scene: Scene, held: Callable[[Batch], bool]) -> None:
        self.reached, self.open = trio.Event(), trio.Event()
        store, commit = scene.stage.store, scene.stage.store.commit

        async def wait_first(batch: Batch) -> None:
            if held(batch):
                self.reached.set()
                await self.open.wait()
            await commit(batch)

        store.commit = wait_first  # type: ignore[method-assign]
