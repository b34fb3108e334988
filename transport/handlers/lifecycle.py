"""Handlers of the methods that change a thread as a whole: each makes an act and hands it to the mailbox."""

from __future__ import annotations

from actors.archiving import Archive, Delete, Unarchive
from actors.history_edits import InjectItems, Revert, Rollback
from actors.naming import SetName, UpdateMetadata
from actors.read_state import UpdateReadState
from actors.settings_update import UpdateSettings
from protocol.base import Wire
from transport.handlers.threads import look_from_the_client
from transport.method import Call


def fork(call: Call) -> None:
    """thread/fork."""
    look_from_the_client(call)
    call.daemon.supervisor.fork(call.params, call.reply)


def archive(call: Call) -> None:
    """thread/archive."""
    call.daemon.supervisor.perform(call.params.thread_id, Archive(), call.reply, "session")


def unarchive(call: Call) -> None:
    """thread/unarchive."""
    call.daemon.supervisor.perform(call.params.thread_id, Unarchive(), call.reply, "session")


def delete(call: Call) -> None:
    """thread/delete."""
    call.daemon.supervisor.perform(call.params.thread_id, Delete(), call.reply)


def name_set(call: Call) -> None:
    """thread/name/set."""
    call.daemon.supervisor.perform(call.params.thread_id, SetName(call.params.name), call.reply)


def metadata_update(call: Call) -> None:
    """thread/metadata/update."""
    call.daemon.supervisor.perform(call.params.thread_id, UpdateMetadata(call.params), call.reply)


def settings_update(call: Call) -> None:
    """thread/settings/update."""
    call.daemon.supervisor.perform(call.params.thread_id, UpdateSettings(call.params), call.reply)


def inject_items(call: Call) -> None:
    """thread/inject_items."""
    call.daemon.supervisor.perform(call.params.thread_id, InjectItems(call.params.items), call.reply)


def revert(call: Call) -> None:
    """thread/revert."""
    call.daemon.supervisor.perform(call.params.thread_id, Revert(call.params.before_turn_id), call.reply)


def rollback(call: Call) -> None:
    """thread/rollback."""
    call.daemon.supervisor.perform(call.params.thread_id, Rollback(call.params.num_turns), call.reply)


def read_state_update(call: Call) -> None:
    """thread/readState/update."""
    call.daemon.supervisor.perform(call.params.thread_id, UpdateReadState(call.params), call.reply)


async def search(call: Call) -> Wire:
    """thread/search."""
    return await call.daemon.catalogue.search(call.params)
