"""One home, one daemon, any number of processes.

The first process on a home owns it: it holds the lock (``Home.claim``), runs the daemon, and besides what it
was asked to listen on it listens on the home's control socket. A later process that would only serve its own
standard streams attaches to the owner instead (``spoold.attached``) and passes messages on; its client
cannot tell the difference. One that would listen elsewhere is refused in a line that names the owner: it
has no client whose messages it could pass on.

Rules:

1. The lock decides, never the socket. The kernel releases it with its process, so there is nothing to clean
   up after a crash, and of any number of processes that want a home exactly one gets it.
2. The socket is bound, replaced and removed only by who holds the lock.
3. Losing the owner is no error: whoever is attached claims the home or attaches to who was faster.

What is passed on is served with the owner's configuration and environment.

This page imports nothing of the daemon: a process that attaches needs none of it.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import trio

from persistence.home import Home, HomeClaim, HomeError, HomeInUse
from spoold.options import DaemonOptions, OptionError, StartError
from transport.channel import MessageChannel
from transport.listen_url import Listen, ListenOff, ListenStdio, parse_listen
from transport.unix import pid_listening_at


@dataclass(frozen=True, slots=True)
class Succession:
    """How a process came to own its home.

    Attributes:
        claim: the lock; whoever gets the succession releases it.
        stdio: the standard streams, if they are in use already: a client is at the other end.
        of: the process that owned the home before and is gone; None where this one is the first.
    """

    claim: HomeClaim
    stdio: MessageChannel | None = None
    of: int | None = None


def run_on_home(options: DaemonOptions) -> int:
    """Run the daemon, or attach to the one that runs, until the client leaves or a signal ends it.

    Returns:
        the exit code; a process that dies of SIGINT does not return.

    Raises:
        OptionError: an option's value is impossible.
        StartError: the daemon cannot start.
    """
    try:
        listens = [parse_listen(url) for url in options.listens]
    except ValueError as error:
        raise OptionError(str(error)) from None
    try:
        home = Home.open(options.home)
        claim = claim_home(home)
    except HomeError as error:
        raise StartError(str(error)) from None
    if claim is not None:
        import spoold.reception  # noqa: F401 - before the loop runs: it takes a good part of the start
    elif not _only_stdio(listens):
        raise StartError(_refusal(home))
    try:
        code = trio.run(_run, options, home, listens, claim)
    finally:
        if claim is not None:
            claim.release()
    if code < 0:
        # A program that a signal ended dies of that signal, so that its parent can tell.
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


def claim_home(home: Home) -> HomeClaim | None:
    """Take the home, or None when another process has it.

    Raises:
        HomeError: it cannot be locked.
    """
    try:
        return home.claim()
    except HomeInUse:
        return None


def say(text: str) -> None:
    """One line for the person who started the program."""
    print(f"spoold {text}", file=sys.stderr, flush=True)


async def _run(options: DaemonOptions, home: Home, listens: Sequence[Listen], claim: HomeClaim | None) -> int:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        if claim is not None:
            return await _own(options, home, listens, signals, Succession(claim))

        from spoold.attached import attach

        gc.enable()
        if options.overrides:
            say(f"ignores -c, --enable and --disable: the owner of {home.root} was configured already")

        async def take_over(succession: Succession) -> int:
            try:
                return await _own(options, home, listens, signals, succession)
            finally:
                succession.claim.release()

        return await attach(home, signals, take_over)


async def _own(
    options: DaemonOptions,
    home: Home,
    listens: Sequence[Listen],
    signals: AsyncIterator[int],
    succession: Succession,
) -> int:
    from spoold.reception import run_daemon

    return await run_daemon(options, home, listens, signals, succession)


def _only_stdio(listens: Sequence[Listen]) -> bool:
    wanted = [listen for listen in listens if not isinstance(listen, ListenOff)]
    return len(wanted) == 1 and isinstance(wanted[0], ListenStdio)


def _refusal(home: Home) -> str:
    pid = pid_listening_at(home.control_socket)
    owner = f"process {pid}, which listens on unix://{home.control_socket}" if pid else "another spoold"
    return f"home {home.root} is in use by {owner}; only --listen stdio:// can share it"
