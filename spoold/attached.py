"""A process that serves its standard streams through the owner of the home.

It passes on: a line from stdin is one text frame to the owner, a text frame is one line on stdout, bytes
unchanged. What it adds is its client's peace when the owner goes away, however that happens:

1. what the client has asked and was not answered is answered with an error (``ownerLost``), what it was asked
   is withdrawn;
2. the home is claimed, or whoever was faster is attached to. Until then nothing is read from the client;
3. the new daemon is greeted with the client's own ``initialize``; the client gets no second answer;
4. a ``warning`` tells it that threads must be resumed.

One message is held in each direction. Who does not read is waited for: the client by this process, and this
process by the owner (see ``transport.unix_client.ATTACHED_HEADER``).
"""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable

import trio

from persistence.home import Home, HomeClaim
from protocol.errors import ParseError
from protocol.jsonrpc import encode_error
from spoold.attached_ledger import Ledger
from spoold.options import StartError
from spoold.ownership import Succession, claim_home, say
from spoold.system_runtime import SystemRuntime
from transport.channel import ChannelClosed, MessageChannel
from transport.framing import MAX_MESSAGE_BYTES, LineFramer, TooLong
from transport.stdio import StdioChannel, standard_streams
from transport.unix_client import LocalWebSocket, NotOurs, connect_spoold

PATIENCE = 30.0
"""Seconds to look for an owner, or to become it: longer than an owner takes to end."""
FIRST_PAUSE, LONGEST_PAUSE = 0.005, 0.25
"""Seconds between attempts; doubled each time."""
ANSWERS_TIMEOUT = 5.0
"""Seconds for the answers that a client awaits which has closed its sending half."""
MOST_LOSSES = 10
"""Owners that may be lost within a minute before we give up."""

LONGEST_LINE = MAX_MESSAGE_BYTES - 1
"""Bytes of the longest line: a websocket takes messages below its limit."""


async def attach(
    home: Home, signals: AsyncIterator[int], take_over: Callable[[Succession], Awaitable[int]]
) -> int:
    """Serve the client on the standard streams through the owner of ``home``, until either is gone for good.

    Args:
        home: owned by another process, when last looked at.
        signals: SIGTERM and SIGINT.
        take_over: runs the daemon in this process, on the streams that it is given.

    Returns:
        the exit code; negative: die of that signal.

    Raises:
        StartError: there is no owner that can be attached to, and the home cannot be claimed.
    """
    with standard_streams() as (in_fd, out_fd):
        stdio = StdioChannel(in_fd, out_fd, LineFramer(LONGEST_LINE))
        try:
            process = _Attached(home, stdio)
        except FileNotFoundError:
            raise StartError("the working directory does not exist any more") from None
        # Nothing is lost by cancelling: whoever sends the signal wants us gone.
        outcome = await _first(process.run, signals)
        if isinstance(outcome, int):
            await stdio.aclose(1000, "")
            return outcome
        return await take_over(outcome)


async def _first(
    run: Callable[[], Awaitable[int | Succession]], signals: AsyncIterator[int]
) -> int | Succession:
    """What ``run`` comes to, or the exit code that a signal asks for."""
    outcome: int | Succession = 0
    async with trio.open_nursery() as nursery:

        async def watch() -> None:
            nonlocal outcome
            number = await anext(signals)
            outcome = -number if number == signal.SIGINT else 0
            nursery.cancel_scope.cancel()

        nursery.start_soon(watch)
        outcome = await run()
        nursery.cancel_scope.cancel()
    return outcome


class _Attached:
    """One client and whoever serves it."""

    def __init__(self, home: Home, stdio: StdioChannel) -> None:
        self._home = home
        self._stdio = stdio
        self._ledger = Ledger()
        self._runtime = SystemRuntime()
        self._folder = os.getcwd()  # noqa: PTH109 - paths travel as text
        self._writing = trio.Lock()
        # The owner that was lost last; 0 before the first.
        self._lost = 0
        self._losses: deque[float] = deque(maxlen=MOST_LOSSES)
        # Invariant: once True, the client sends no more.
        self._left = False
        # Invariant: once True, it has all the answers that it will get.
        self._served = False
        self._settled = trio.Event()

    async def run(self) -> int | Succession:
        """Pass on until the client has left (the exit code), or the home is ours."""
        try:
            while True:
                found = await self._find()
                if isinstance(found, HomeClaim):
                    return self._succession(found)
                await self._pass_on(found)
                if self._served:
                    return 0
                await self._lose(found)
                if self._left:
                    return 0
        except ChannelClosed:
            return 0

    async def _find(self) -> LocalWebSocket | HomeClaim:
        reason: Exception | None = None
        pause = FIRST_PAUSE
        with trio.move_on_after(PATIENCE):
            while True:
                claim = claim_home(self._home)
                if claim is not None:
                    return claim
                try:
                    return await connect_spoold(self._home.control_socket, self._folder)
                except (PermissionError, NotOurs) as error:
                    reason = error
                    break
                except OSError as error:
                    reason = error
                await trio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
        raise StartError(
            f"home {self._home.root} is in use by another spoold, which cannot be reached on "
            f"unix://{self._home.control_socket}: {getattr(reason, 'strerror', None) or reason}"
        )

    def _succession(self, claim: HomeClaim) -> Succession:
        ledger = self._ledger
        greeting = ledger.greeting()
        if greeting is None:
            return Succession(claim, self._stdio, self._lost or None)
        answer = self._warning() if ledger.greets else None
        return Succession(claim, GreetedChannel(self._stdio, greeting, answer), self._lost or None)

    def _warning(self) -> list[bytes]:
        return self._ledger.warning(self._lost, self._runtime.now_ms())

    async def _lose(self, owner: LocalWebSocket) -> None:
        self._lost = owner.pid
        say(f"lost process {owner.pid}, which owned {self._home.root}")
        await self._write(self._ledger.losses(owner.pid, self._runtime.now_ms()))
        now = trio.current_time()
        if len(self._losses) == MOST_LOSSES and now - self._losses[0] < 60:
            raise StartError(f"connections to the owner of home {self._home.root} keep ending")
        self._losses.append(now)

    async def _pass_on(self, owner: LocalWebSocket) -> None:
        """Serve the client through this owner until one of them is gone."""
        say(f"is attached to process {owner.pid}, which owns {self._home.root}")
        try:
            greeting = self._ledger.greeting()
            if greeting is not None:
                await owner.send(greeting)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._upward, owner)
                # The end of the owner shows here, after everything that it has sent.
                await self._downward(owner)
                nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                await owner.aclose()

    async def _upward(self, owner: LocalWebSocket) -> None:
        while (line := await self._stdio.receive()) is not None:
            if isinstance(line, TooLong):
                error = ParseError(f"Parse error: a message is longer than {line.limit} bytes")
                await self._write([encode_error(None, error)])
                continue
            answer = self._ledger.sent(line)
            if answer is not None:
                await self._write([answer])
                continue
            try:
                await owner.send(line)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return
        self._left = True
        if self._ledger.in_flight:
            with trio.move_on_after(ANSWERS_TIMEOUT):
                await self._settled.wait()
        self._served = True
        await owner.aclose()

    async def _downward(self, owner: LocalWebSocket) -> None:
        while messages := await owner.receive():
            passed: list[bytes] = []
            for message in messages:
                if self._ledger.received(message):
                    passed.append(message)
                else:
                    passed += self._warning()
            await self._write(passed)
            if self._left and not self._ledger.in_flight:
                self._settled.set()

    async def _write(self, messages: list[bytes]) -> None:
        if messages:
            async with self._writing:
                await self._stdio.send_many(messages)


class GreetedChannel:
    """A channel whose client has said ``initialize`` to a daemon that is gone.

    Args:
        channel: the client's; closed with this one.
        greeting: what is received first.
        answer: what the client gets in the place of the first message that is sent, which answers the
            greeting; None lets that pass.
    """

    def __init__(self, channel: MessageChannel, greeting: bytes, answer: list[bytes] | None) -> None:
        self._channel = channel
        self._greeting: bytes | None = greeting
        self._answer = answer

    @property
    def name(self) -> str:
        """See ``MessageChannel.name``."""
        return self._channel.name

    @property
    def waits_for_reader(self) -> bool:
        """See ``MessageChannel.waits_for_reader``."""
        return self._channel.waits_for_reader

    async def receive(self) -> bytes | str | TooLong | None:
        """See ``MessageChannel.receive``."""
        greeting, self._greeting = self._greeting, None
        return greeting if greeting is not None else await self._channel.receive()

    async def send_many(self, messages: list[bytes]) -> None:
        """See ``MessageChannel.send_many``."""
        answer, self._answer = self._answer, None
        if answer is not None:
            messages = [*answer, *messages[1:]]
        if messages:
            await self._channel.send_many(messages)

    async def aclose(self, code: int, reason: str) -> None:
        """See ``MessageChannel.aclose``."""
        await self._channel.aclose(code, reason)
