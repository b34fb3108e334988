"""The supervisor: which threads are loaded, who is connected, and how the daemon ends.

It owns one nursery with one task per loaded thread and never waits itself: every entry point is a plain
function that posts to a mailbox or answers at once, so requests keep the order in which they came.

Loading is single-flight because the actor is made first and loads itself: the second request for the same
thread finds the actor and waits in its mailbox. A thread that is stopping is out of the table already; its
next incarnation waits for ``finished`` of the old one before it reads the disk, so the two never overlap.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import trio

from actors.acts import Act
from actors.disk_watch import DiskWatch
from actors.effects import OpenFork
from actors.forking import Fork
from actors.lines import recorded_settings
from actors.loading import load_thread
from actors.messages import (
    Answered,
    Drain,
    Leave,
    Message,
    PeerGone,
    Perform,
    Read,
    ReadHistory,
    Resume,
    Shutdown,
    Started,
    Unsubscribe,
)
from actors.peer import Outgoing, Peer, Reply
from actors.put_aside import PutAside
from actors.refusals import refuse
from actors.residency import ResidentRuntimes
from actors.starting import new_thread
from actors.state import ThreadState
from actors.step import StepContext, draining_error
from actors.thread_actor import ThreadActor
from actors.thread_settings import settings_from
from actors.turn_task import TurnRunner
from agent.model.events import ResponseItem
from persistence.config import Config
from persistence.home import Home
from persistence.rollout_files import thread_of
from persistence.store import Store
from persistence.writer_locks import ThreadClaims
from protocol.base import Wire
from protocol.errors import InvalidRequest
from protocol.ids import thread_id as parse_thread_id
from protocol.jsonrpc import Response, encode_notification
from protocol.lifecycle_methods import ThreadForkParams
from protocol.notifications import StatusChanged, ThreadNote
from protocol.runtime import Runtime
from protocol.thread_methods import (
    ThreadResumeParams,
    ThreadStartOverrides,
    ThreadStartParams,
    UnsubscribeResult,
)
from protocol.threads import ThreadStatus

log = logging.getLogger(__name__)


class Supervisor:
    """See the module docstring.

    Attributes:
        runtime: clock and ids.
        store: the persistence room.
        config: the daemon's configuration.

    Args:
        new_runner: makes what runs the turns of one thread.
        server_cwd: where threads work that name no folder.
        home: where their files lie.
        first_request_id: the id of the first server request; the others follow.
    """

    def __init__(
        self,
        runtime: Runtime,
        store: Store,
        config: Config,
        new_runner: Callable[[], TurnRunner],
        server_cwd: str,
        home: Home,
        *,
        first_request_id: int = 0,
    ) -> None:
        self.runtime = runtime
        self.store = store
        self.config = config
        self._new_runner = new_runner
        self._server_cwd = server_cwd
        self._home = home
        self._claims = ThreadClaims(home)
        # Invariant: an actor is in `_actors` from before its task starts until `retire` says yes.
        self._actors: dict[str, ThreadActor] = {}
        # Actors that are out of the table and not finished yet.
        self._stopping: dict[str, trio.Event] = {}
        self._put_aside = PutAside()
        self._peers: dict[int, Peer] = {}
        self._requests: dict[int, ThreadActor] = {}
        # Never one that a client may still answer from the time of a daemon that is gone.
        self._next_request_id = first_request_id
        self._draining = False
        self._stopped = False
        self._drained = trio.Event()
        # Invariant: not None only while somebody waits for the last running turn to end.
        self._quiet: trio.Event | None = None
        self._nursery: trio.Nursery | None = None
        self._step = StepContext(
            runtime,
            self._new_request_id,
            lambda: self._draining,
            new_epoch(runtime),
            pause_queue=config.queue_on_interrupt == "pause",
        )
        self._disk_watch = DiskWatch(store, runtime, self.broadcast, self._go_on)
        self._residents = ResidentRuntimes(config.limits.max_resident_runtimes)
        # Invariant: no less than any seq that an actor which is gone has used.
        self._seq_floor = 0

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Hold the actors until cancelled. Cancelled: actors are cut off; call ``stop`` before."""
        async with trio.open_nursery() as self._nursery:
            self._nursery.start_soon(self._disk_watch.run)
            task_status.started()
            await trio.sleep_forever()

    # -- what handlers call ---------------------------------------------------------------------------

    def start_thread(self, params: ThreadStartParams, reply: Reply) -> None:
        """thread/start: make the actor; its first step answers.

        Raises:
            InvalidRequest: the settings are wrong, or the daemon is draining.
        """
        if self._draining:
            raise draining_error()
        state, warnings = new_thread(
            params, self.config, self.runtime, self._home, self._server_cwd, reply.peer.client_name
        )
        actor = self._new_actor(state.record.id, initial=state)
        actor.mailbox.put_always(Started(reply, tuple(warnings)))

    def resume(self, params: ThreadResumeParams, reply: Reply) -> None:
        """thread/resume: to the loaded thread, or to a new actor that loads itself.

        Raises:
            InvalidRequest: the id or the path is wrong, or the daemon is draining.
        """
        if self._draining:
            raise draining_error()
        thread_id = parse_thread_id(params.thread_id, "session")
        if thread_id not in self._actors and params.path is not None:
            # The path wins over the id, where it names a thread of ours.
            thread_id = thread_of(Path(params.path).name) or thread_id
        actor = self._actors.get(thread_id) or self._new_actor(thread_id)
        actor.mailbox.put(Resume(reply, params))

    def perform(self, thread_id: str, act: Act, reply: Reply, noun: str = "thread") -> None:
        """An act on a thread, loaded or not: to its actor, or to a new one that loads itself quietly.

        Raises:
            InvalidRequest: the id is malformed, ``noun`` is what the error calls it; or the daemon is ending.
            Overloaded: the mailbox is full.
        """
        if self._stopped:
            raise draining_error()
        canonical = parse_thread_id(thread_id, noun)
        actor = self._actors.get(canonical) or self._new_actor(canonical)
        actor.mailbox.put(Perform(reply, act))

    def fork(self, params: ThreadForkParams, reply: Reply) -> None:
        """thread/fork: an act of the source, with settings that are checked before anything is written.

        Raises:
            InvalidRequest: the id or the settings are wrong, or the daemon is draining.
            Overloaded: the source's mailbox is full.
        """
        if self._draining:
            raise draining_error()
        settings_from(self.config, params, self._server_cwd)
        self.perform(params.thread_id, Fork(params), reply, "session")

    def post(self, thread_id: str, message: Message) -> None:
        """Hand a message to a loaded thread.

        Raises:
            InvalidRequest: the id is malformed, or no such thread is loaded.
            Overloaded: its mailbox is full.
        """
        actor = self._actors.get(parse_thread_id(thread_id))
        if actor is None:
            raise InvalidRequest(f"thread not found: {thread_id}")
        actor.mailbox.put(message)

    def loaded(self, thread_id: str) -> ThreadActor | None:
        """The actor in service for a thread, by canonical id; it may be loading, or be there quietly."""
        return self._actors.get(thread_id)

    def live_state(self, thread_id: str) -> ThreadState | None:
        """What has been published of a loaded thread; None while it loads, and for one that is not."""
        actor = self._actors.get(thread_id)
        state = None if actor is None else actor.state
        return state if state is not None and state.announced else None

    def loaded_ids(self) -> list[str]:
        """Ids of loaded threads, ascending."""
        return sorted(thread_id for thread_id in self._actors if self.live_state(thread_id) is not None)

    # -- connections ----------------------------------------------------------------------------------

    def peer_ready(self, peer: Peer) -> None:
        """From now on the peer gets broadcasts."""
        self._peers[peer.id] = peer
        self._disk_watch.welcome(peer)

    def peer_gone(self, peer: Peer) -> None:
        """Drop the peer's subscriptions. What runs goes on."""
        if self._peers.pop(peer.id, None) is not None:
            for actor in self._actors.values():
                actor.mailbox.put_always(PeerGone(peer))

    def answer(self, peer: Peer, response: Response) -> None:
        """A client's answer to a server request; one that nobody waits for is ignored."""
        if not isinstance(response.id, int):
            return
        actor = self._requests.get(response.id)
        if actor is not None:
            actor.mailbox.put_always(Answered(peer.id, response.id, response.result, response.failed))

    def broadcast(self, message: Outgoing, *, besides: Sequence[Peer] = ()) -> None:
        """Send to every initialised connection that is not one of ``besides``."""
        without = {peer.id for peer in besides}
        for peer in list(self._peers.values()):
            if peer.id not in without:
                peer.deliver(message)

    # -- what actors call -----------------------------------------------------------------------------

    def own_request(self, request_id: int, actor: ThreadActor) -> None:
        """Route answers to this request to this actor."""
        self._requests[request_id] = actor

    def forget_request(self, request_id: int) -> None:
        """The request is settled."""
        self._requests.pop(request_id, None)

    def runtime_used(self, actor: ThreadActor) -> None:
        """The actor holds a runtime and has used it just now."""
        self._residents.used(actor)

    def runtime_dropped(self, actor: ThreadActor) -> None:
        """The actor holds no runtime any more."""
        self._residents.gone(actor)

    def retire(self, actor: ThreadActor) -> bool:
        """Take an actor out of service unless messages wait for it.

        No await between the check and the removal: what comes later finds no actor and makes a new one.
        """
        if len(actor.mailbox):
            return False
        self._take_out(actor)
        return True

    def leave(self, actor: ThreadActor) -> None:
        """Take an actor out of service at once; what waits for it goes to the thread's next incarnation.

        A message that only a loaded thread can take is answered as for one that is not.
        """
        self._take_out(actor)
        for message in actor.mailbox.drain():
            match message:
                case _ if self._stopped:
                    refuse(message, draining_error())
                case Resume() | Perform() | Read() | ReadHistory():
                    successor = self._actors.get(actor.thread_id) or self._new_actor(actor.thread_id)
                    self._hand(successor, message, message.reply.peer)
                case Unsubscribe():
                    message.reply.result(UnsubscribeResult(status="notLoaded"))
                case _:
                    refuse(message, InvalidRequest(f"thread not found: {actor.thread_id}"))

    def _take_out(self, actor: ThreadActor) -> None:
        if self._actors.get(actor.thread_id) is actor:
            del self._actors[actor.thread_id]
            self._residents.gone(actor)
            self._stopping[actor.thread_id] = actor.finished
            self._seq_floor = max(self._seq_floor, actor.seq)
            self._check_drained()

    def _hand(self, actor: ThreadActor, message: Message, peer: Peer) -> None:
        """A message that was in another actor's hands; its client may have gone meanwhile."""
        actor.mailbox.put_always(message)
        if peer.id not in self._peers:
            actor.mailbox.put_always(PeerGone(peer))

    def open_fork(self, fork: OpenFork, source_id: str) -> None:
        """Start a thread that was just made from another; its first step answers the request."""
        if fork.state is not None:
            settings, _ = settings_from(
                self.config, fork.params, self._server_cwd, recorded_settings(fork.state.settings)
            )
            state = replace(fork.state, settings=settings)
            actor = self._new_actor(fork.thread_id, initial=state, context=fork.context)
        else:
            actor = self._new_actor(fork.thread_id, overrides=fork.params)
        started = Started(fork.reply, fork=fork.params, fork_source=source_id)
        self._hand(actor, started, fork.reply.peer)

    async def clear_away(self, actor: ThreadActor, thread_ids: list[str]) -> list[str]:
        """End the actors of these threads, interrupting what runs, and wait until they are gone.

        Until ``give_back`` no other is loaded. Gives the ids of those that the actor's act may take along.
        """
        taken = self._put_aside.take(actor.thread_id, thread_ids)
        served = [each for each in taken if not self._put_aside.waits(each)]
        leaving = [other for other in map(self._actors.get, served) if other is not None]
        for other in leaving:
            other.mailbox.put_always(Leave())
        finished = [other.finished for other in leaving]
        finished += [event for each in taken if (event := self._stopping.get(each)) is not None]
        for event in finished:
            await event.wait()
        return taken

    def give_back(self, actor: ThreadActor) -> None:
        """The actor's act is over: what it has cleared away may be loaded again."""
        self._put_aside.give_back(actor.thread_id)

    def announce_closed(self, thread_id: str, status: ThreadStatus | None) -> None:
        """Tell everybody that a thread is not loaded any more; ``status`` None: they know it already."""
        now = self.runtime.now_ms()
        notes: list[tuple[str, Wire]] = [("thread/closed", ThreadNote(thread_id=thread_id))]
        if status is not None:
            notes.insert(0, ("thread/status/changed", StatusChanged(thread_id=thread_id, status=status)))
        for method, params in notes:
            self.broadcast(Outgoing(encode_notification(method, params, now), method))

    def _go_on(self) -> None:
        """The disk works again: what it has kept from running is tried once more."""
        for actor in self._actors.values():
            if self.live_state(actor.thread_id) is not None:
                actor.mailbox.put_always(Drain())

    def turn_over(self) -> None:
        """A turn ended: a daemon that waits for it may be able to leave."""
        self._check_drained()

    # -- the end --------------------------------------------------------------------------------------

    @property
    def draining(self) -> bool:
        """Whether new work is refused."""
        return self._draining

    def running_turns(self) -> int:
        """How many turns run now."""
        return sum(1 for actor in self._actors.values() if actor.state is not None and actor.state.turn)

    def begin_drain(self) -> None:
        """Refuse new turns from now on; those that run go on."""
        self._draining = True
        self._check_drained()

    async def quiet(self) -> None:
        """Wait until no turn runs; new ones are not refused meanwhile."""
        while self.running_turns():
            if self._quiet is None:
                self._quiet = trio.Event()
            await self._quiet.wait()

    async def drained(self) -> None:
        """Wait until no turn runs, after ``begin_drain``."""
        await self._drained.wait()

    async def stop(self) -> None:
        """Interrupt what runs, make it durable, and end every actor. Shield it with a deadline."""
        self._draining = self._stopped = True
        actors = list(self._actors.values())
        for actor in actors:
            actor.mailbox.put_always(Shutdown())
        for actor in actors:
            await actor.finished.wait()

    def _check_drained(self) -> None:
        if self.running_turns():
            return
        if self._draining:
            self._drained.set()
        if self._quiet is not None:
            self._quiet.set()
            self._quiet = None

    # -- making actors --------------------------------------------------------------------------------

    def _new_request_id(self) -> int:
        request_id = self._next_request_id
        self._next_request_id += 1
        return request_id

    def _new_actor(
        self,
        thread_id: str,
        *,
        initial: ThreadState | None = None,
        context: Sequence[ResponseItem] = (),
        overrides: ThreadStartOverrides | None = None,
    ) -> ThreadActor:
        """``initial`` None: it loads itself from disk, with ``overrides`` if no resume brings its own."""
        assert self._nursery is not None, "run() has been started"
        previous = self._stopping.get(thread_id)
        put_aside = self._put_aside.must_wait(thread_id)

        async def load(wanted: ThreadStartOverrides | None) -> ThreadState:
            if previous is not None:
                await previous.wait()
            if put_aside:
                await self._put_aside.back(thread_id)
            self._claims.hold(actor, thread_id)
            chosen = wanted or overrides
            return await load_thread(self.store, self.config, chosen, thread_id, self._server_cwd)

        actor = ThreadActor(
            thread_id,
            self,
            self.store,
            self._step,
            self._new_runner(),
            unload_after=self.config.thread_unload_delay_secs,
            unattended=self.config.unattended,
            runtime_idle=self.config.limits.runtime_idle_secs,
            mailbox_capacity=self.config.limits.mailbox_length,
            seq_floor=self._seq_floor,
            initial=initial,
            context=context,
            load=load if initial is None else None,
        )
        self._actors[thread_id] = actor
        self._nursery.start_soon(self._run_actor, actor, name=f"thread {thread_id}")
        return actor

    async def _run_actor(self, actor: ThreadActor) -> None:
        try:
            if actor.state is not None and not actor.state.ephemeral:
                self._claims.hold(actor, actor.thread_id)
            await actor.run()
        finally:
            self._claims.release(actor)
            if self._stopping.get(actor.thread_id) is actor.finished:
                del self._stopping[actor.thread_id]
            self._residents.gone(actor)
            if self._actors.get(actor.thread_id) is actor:
                del self._actors[actor.thread_id]
            self._requests = {key: owner for key, owner in self._requests.items() if owner is not actor}
            self._check_drained()


def new_epoch(runtime: Runtime) -> str:
    """A name for this life of the daemon; no UUID text, so that nobody takes it for the id of a thing."""
    return runtime.new_id().replace("-", "")
