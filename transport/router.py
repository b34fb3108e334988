"""From a parsed message to its handler, and from what the handler did to the one answer.

The checks come in the order clients know: the method's name, the handshake, the shape of the parameters,
the experimental gate of the method, the gates of its fields. What fails a check is answered at once and
may therefore overtake answers that are still being worked on.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

import trio

from actors.peer import Outgoing
from protocol.errors import InternalError, InvalidRequest, Overloaded, ParseError, RpcError
from protocol.jsonrpc import ABSENT, Malformed, Message, Notification, Request, Response, encode_error
from protocol.validation import parse_params
from transport.handshake import HANDSHAKE
from transport.method import DEFERRED, Call, Method
from transport.reply import ReplySlot

if TYPE_CHECKING:
    from transport.connection import Connection

log = logging.getLogger(__name__)


def dispatch(connection: Connection, message: Message) -> trio.Event | None:
    """Take one message of a client. Returns at once and never raises.

    Returns:
        for a request that became a task: an event that is set when its handler has begun. Requests
        begin in the order they came if the caller waits for it before the next message.
    """
    match message:
        case Request():
            return _request(connection, message)
        case Response():
            if connection.initialised:
                connection.gateway.daemon.answer(connection, message)
        case Malformed():
            _refuse(connection, message)
        case Notification():
            pass
    return None


def _refuse(connection: Connection, message: Malformed) -> None:
    """Answer bytes that are no message. There is no id to echo."""
    connection.answer(Outgoing(encode_error(None, ParseError(message.reason))))


def _request(connection: Connection, request: Request) -> trio.Event | None:
    connection.in_flight += 1
    reply = ReplySlot(connection, request.id)
    try:
        method, call = _check(connection, request, reply)
        if method.kind == "task":
            started = trio.Event()
            connection.nursery.start_soon(_run_task, method, call, started)
            return started
        value = method.handler(call)
        if method.kind == "inline" and value is not DEFERRED and not reply.done:
            reply.result({} if value is None else value)
    except Exception as error:
        _fail(request.method, reply, error)
    return None


def _check(connection: Connection, request: Request, reply: ReplySlot) -> tuple[Method, Call]:
    gateway = connection.gateway
    method = gateway.methods.get(request.method)
    if method is None:
        names = ", ".join(f"`{name}`" for name in gateway.methods)
        raise InvalidRequest(
            f"Invalid request: unknown variant `{request.method[:200]}`, expected one of {names}"
        )
    if not connection.initialised and request.method != HANDSHAKE.name:
        raise InvalidRequest("Not initialized")
    raw = request.params
    if raw is ABSENT:
        if not method.params_optional:
            raise InvalidRequest("Invalid request: missing field `params`")
        raw = {}
    params = parse_params(method.params, raw)
    if not connection.experimental:
        _check_gates(method, raw)
    if connection.in_flight > gateway.limits.in_flight:
        raise Overloaded
    return method, Call(request.method, params, connection, reply, gateway.daemon, raw)


def _check_gates(method: Method, raw: Mapping[str, object]) -> None:
    if method.stability == "experimental":
        raise InvalidRequest(f"{method.name} requires experimentalApi capability")
    for name in method.gated_fields:
        value = raw.get(name)
        # Null and false are the defaults of every gated field: sending them asks for nothing.
        if value is not None and value is not False:
            raise InvalidRequest(f"{method.name}.{name} requires experimentalApi capability")


async def _run_task(method: Method, call: Call, started: trio.Event) -> None:
    # Everything up to the handler's first wait runs before anyone who waits for ``started`` goes on.
    started.set()
    try:
        value = await method.handler(call)
        if value is not DEFERRED and not call.reply.done:
            call.reply.result({} if value is None else value)
    except Exception as error:
        _fail(method.name, call.reply, error)


def _fail(method: str, reply: ReplySlot, error: Exception) -> None:
    told = _rpc_error(error)
    if told is None:
        log.error("%s failed", method, exc_info=error)
        told = InternalError("internal error")
    if not reply.done:
        reply.error(told)


def _rpc_error(error: BaseException) -> RpcError | None:
    """The error meant for the client: itself, or alone in the groups that nurseries make of it."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error if isinstance(error, RpcError) else None
