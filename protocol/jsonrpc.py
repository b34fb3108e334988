"""JSON-RPC as the protocol speaks it: no ``jsonrpc`` member, integer or string ids, nothing else.

``parse`` turns the bytes of one message into one of four values. It never raises: what cannot be a
message comes back as ``Malformed`` with the reason, because what to do about it is the connection's
decision. Depth is bounded by the JSON parser itself (pydantic-core refuses about 200 levels), so a
hostile message costs no recursion.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json

from protocol.base import encode
from protocol.errors import RpcError

RequestId = int | str
"""The id of a request. Echoed with the JSON type it came with."""

ABSENT: Any = object()
"""Stands for a ``params`` member that was not sent (``null`` counts as not sent, too)."""


@dataclass(frozen=True, slots=True)
class Request:
    """A call that must be answered exactly once."""

    id: RequestId
    method: str
    params: Any


@dataclass(frozen=True, slots=True)
class Notification:
    """A message that is never answered."""

    method: str
    params: Any


@dataclass(frozen=True, slots=True)
class Response:
    """The peer's answer to a server request: exactly one of ``result`` and ``error`` has meaning."""

    id: RequestId
    result: Any
    error: Any
    failed: bool


@dataclass(frozen=True, slots=True)
class Malformed:
    """Bytes that are no message.

    Attributes:
        reason: one plain sentence for the ``-32700`` answer.
    """

    reason: str


Message = Request | Notification | Response | Malformed


def parse(data: bytes | str) -> Message:
    """Read one message. See the module docstring; never raises."""
    try:
        value = from_json(data, allow_inf_nan=False)
    except ValueError as error:
        return Malformed(f"Parse error: {error}")
    if not isinstance(value, dict):
        return Malformed(f"Parse error: a message is a JSON object, not {_kind(value)}")
    method = value.get("method", ABSENT)
    has_id = "id" in value
    request_id: RequestId = value["id"] if has_id else 0
    if has_id and not _is_request_id(request_id):
        return Malformed("Parse error: `id` must be an integer or a string")
    params = value.get("params")
    if params is None:
        params = ABSENT
    if method is not ABSENT:
        if not isinstance(method, str):
            return Malformed("Parse error: `method` must be a string")
        if has_id:
            return Request(request_id, method, params)
        return Notification(method, params)
    if has_id and ("result" in value or "error" in value):
        return Response(request_id, value.get("result"), value.get("error"), "error" in value)
    return Malformed("Parse error: neither a request, a notification nor a response")


def _is_request_id(value: object) -> bool:
    if isinstance(value, bool):
        return False
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    return isinstance(value, str)


def _kind(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case _:
            return "an array"


def encode_result(request_id: RequestId, result: object) -> bytes:
    """The answer to a request that went well. ``result`` is a wire model or plain JSON values."""
    return encode({"id": request_id, "result": result})


def encode_error(request_id: RequestId | None, error: RpcError) -> bytes:
    """The answer to a request that did not; ``request_id`` is None where no id could be read."""
    return encode({"error": error.to_wire(), "id": request_id})


def encode_notification(
    method: str, params: object, emitted_at_ms: int, *, seq: int | None = None, epoch: str | None = None
) -> bytes:
    """A server notification; ``emitted_at_ms`` is Unix milliseconds.

    Notifications of a thread carry ``seq`` and ``epoch``, too: see ``actors.replay``.
    """
    message = {"method": method, "params": params, "emittedAtMs": emitted_at_ms}
    if seq is not None:
        message["seq"] = seq
        message["epoch"] = epoch
    return encode(message)


def encode_request(request_id: RequestId, method: str, params: object) -> bytes:
    """A server request: the same bytes go to every subscriber."""
    return encode({"method": method, "id": request_id, "params": params})
