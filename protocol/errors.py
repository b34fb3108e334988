"""Every error a client can be told, as one tree. Each class says whose fault it was.

``RpcError`` and below answer one request (JSON-RPC error object). ``TurnFailure`` is not an RPC
error: a model or a tool failed, the request was fine, and the turn ends as ``failed``.
The codes are the reference's; -32700 alone is ours.
"""

from __future__ import annotations

from typing import Any, ClassVar


class RpcError(Exception):
    """A request that is answered with an error object.

    Attributes:
        code: JSON-RPC error code.
        message: what the client is told; never holds a traceback or a secret.
        data: optional JSON value with the error's own fields.
    """

    code: ClassVar[int] = -32603

    def __init__(self, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.message = message
        self.data = data

    def to_wire(self) -> dict[str, Any]:
        """The ``error`` member of a response."""
        body: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.data is not None:
            body["data"] = self.data
        return body


class ParseError(RpcError):
    """The client's fault: the bytes are no JSON-RPC message. Answered with ``id: null``."""

    code = -32700


class InvalidRequest(RpcError):
    """The client's fault: wrong parameters, an unknown id, or a state that forbids the request."""

    code = -32600


class ActiveWriter(RpcError):
    """Nobody's fault: another process has the thread loaded."""

    code = -32600

    def __init__(self, thread_id: str) -> None:
        super().__init__(f"thread {thread_id} already has an active writer")


class InvalidParams(RpcError):
    """The client's fault, for the few checks where the reference uses -32602 (input too large, ...)."""

    code = -32602


class NotSupported(RpcError):
    """Nobody's fault: the method or the combination is known and not offered."""

    code = -32601


class InternalError(RpcError):
    """Our fault. The cause is logged with its traceback; the client gets one plain sentence."""

    code = -32603


class Overloaded(RpcError):
    """A bound was reached (mailbox, requests in flight). The client may try again."""

    code = -32001

    def __init__(self) -> None:
        super().__init__("Server overloaded; retry later.")


class TurnFailure(Exception):
    """A model or tool failure that ends the turn as ``failed``.

    Attributes:
        message: what the user reads in ``turn.error.message``.
        info: ``codexErrorInfo``: a string, or an object with one member.
        details: ``additionalDetails``, the cause in more words, or None.
        retryable: whether another attempt at the same model request may succeed.
        retry_after: seconds the provider asked us to wait, or None.
    """

    def __init__(
        self,
        message: str,
        info: str | dict[str, Any] = "other",
        *,
        details: str | None = None,
        retryable: bool = False,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.info = info
        self.details = details
        self.retryable = retryable
        self.retry_after = retry_after
