"""Handlers of the thread methods: from a checked request to the room that answers it."""

from __future__ import annotations

from typing import Any

from actors.messages import Unsubscribe
from actors.thread_settings import absolute
from protocol.base import Wire
from protocol.ids import thread_id as parse_thread_id
from protocol.thread_methods import ThreadStartParams, UnsubscribeResult
from transport.method import DEFERRED, Call


def start(call: Call) -> None:
    """thread/start."""
    look_from_the_client(call)
    call.daemon.supervisor.start_thread(call.params, call.reply)


def resume(call: Call) -> None:
    """thread/resume."""
    look_from_the_client(call)
    call.daemon.supervisor.resume(call.params, call.reply)


def look_from_the_client(call: Call) -> None:
    """A path means what it means to the client, also where that was started elsewhere than the daemon."""
    base, params = call.peer.working_directory, call.params
    if base is not None and (params.cwd or isinstance(params, ThreadStartParams)):
        params.cwd = absolute(params.cwd or "", base)


def unsubscribe(call: Call) -> None:
    """thread/unsubscribe: an unknown id is ``notLoaded``, a malformed one an error."""
    supervisor = call.daemon.supervisor
    if supervisor.live_state(parse_thread_id(call.params.thread_id)) is None:
        call.reply.result(UnsubscribeResult(status="notLoaded"))
    else:
        supervisor.post(call.params.thread_id, Unsubscribe(call.reply))


async def read(call: Call) -> Any:
    """thread/read."""
    return await call.daemon.catalogue.read(call.params, call.reply) or DEFERRED


async def list_threads(call: Call) -> Wire:
    """thread/list."""
    return await call.daemon.catalogue.list_threads(call.params)


async def turns_list(call: Call) -> Any:
    """thread/turns/list."""
    return await call.daemon.catalogue.turns_list(call.params, call.reply) or DEFERRED


async def items_list(call: Call) -> Any:
    """thread/items/list."""
    return await call.daemon.catalogue.items_list(call.params, call.reply) or DEFERRED


def loaded_list(call: Call) -> Wire:
    """thread/loaded/list."""
    return call.daemon.catalogue.loaded_list(call.params)
