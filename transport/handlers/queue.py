"""Handlers of the queue's methods."""

from __future__ import annotations

from actors.queueing import (
    QueueAdd,
    QueueDelete,
    QueueList,
    QueueReorder,
    QueueStart,
    QueueUpdate,
    wire_of,
)
from transport.method import Call


def add(call: Call) -> None:
    """thread/queue/add."""
    params = call.params
    wire = wire_of(params, call.raw.get("turnStartParams"))
    call.daemon.supervisor.perform(params.thread_id, QueueAdd(params, wire), call.reply)


def list_rows(call: Call) -> None:
    """thread/queue/list."""
    call.daemon.supervisor.perform(call.params.thread_id, QueueList(call.params), call.reply)


def update(call: Call) -> None:
    """thread/queue/update."""
    params = call.params
    wire = wire_of(params, call.raw.get("turnStartParams"))
    call.daemon.supervisor.perform(params.thread_id, QueueUpdate(params, wire), call.reply)


def delete(call: Call) -> None:
    """thread/queue/delete."""
    call.daemon.supervisor.perform(call.params.thread_id, QueueDelete(call.params), call.reply)


def reorder(call: Call) -> None:
    """thread/queue/reorder."""
    call.daemon.supervisor.perform(call.params.thread_id, QueueReorder(call.params), call.reply)


def start(call: Call) -> None:
    """thread/queue/start."""
    call.daemon.supervisor.perform(call.params.thread_id, QueueStart(call.params), call.reply)
