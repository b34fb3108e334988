"""Handlers of the methods that concern the daemon."""

from __future__ import annotations

from protocol.base import Wire
from protocol.daemon_methods import AccountReadResult, ModelListResult
from protocol.errors import InvalidRequest
from transport.method import Call


def model_list(call: Call) -> Wire:
    """model/list; the cursor is a decimal offset.

    Raises:
        InvalidRequest: the cursor is no offset into the list.
    """
    params = call.params
    models = call.daemon.models(params.model_provider)
    offset = 0
    if params.cursor is not None:
        if not params.cursor.isascii() or not params.cursor.isdigit():
            raise InvalidRequest(f"invalid cursor: {params.cursor}")
        offset = int(params.cursor)
        if offset > len(models):
            raise InvalidRequest(f"cursor {offset} exceeds total models {len(models)}")
    limit = len(models) if params.limit is None else max(1, params.limit)
    end = offset + limit
    return ModelListResult(data=models[offset:end], next_cursor=str(end) if end < len(models) else None)


def config_read(call: Call) -> Wire:
    """config/read."""
    return call.daemon.read_config(call.params)


def account_read(call: Call) -> Wire:
    """account/read: spoold holds no account, providers take their keys from the environment."""
    return AccountReadResult()
