"""Handlers of the turn methods: all go to the thread's mailbox."""

from __future__ import annotations

from actors.messages import TurnInterrupt, TurnStart, TurnSteer
from actors.turns import check_input
from transport.method import Call


def start(call: Call) -> None:
    """turn/start."""
    check_input(call.params.input)
    call.daemon.supervisor.post(call.params.thread_id, TurnStart(call.reply, call.params))


def steer(call: Call) -> None:
    """turn/steer."""
    check_input(call.params.input)
    call.daemon.supervisor.post(call.params.thread_id, TurnSteer(call.reply, call.params))


def interrupt(call: Call) -> None:
    """turn/interrupt."""
    call.daemon.supervisor.post(call.params.thread_id, TurnInterrupt(call.reply, call.params))
