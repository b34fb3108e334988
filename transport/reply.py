"""The slot for the one answer of one request."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from actors.peer import Outgoing
from protocol.errors import InternalError, RpcError
from protocol.jsonrpc import RequestId, encode_error, encode_result

if TYPE_CHECKING:
    from transport.connection import Connection

log = logging.getLogger(__name__)


class ReplySlot:
    """Answers one request exactly once; implements ``actors.peer.Reply``.

    An answer to a client that is gone is dropped. While unanswered, the request counts against its
    connection's bound of requests in flight.
    """

    __slots__ = ("_done", "_request_id", "peer")

    def __init__(self, peer: Connection, request_id: RequestId) -> None:
        self.peer = peer
        self._request_id = request_id
        # Invariant: goes from False to True once, together with the connection's count of requests in flight.
        self._done = False

    @property
    def done(self) -> bool:
        """Whether the answer was given."""
        return self._done

    def result(self, value: object) -> None:
        """Answer with a wire model or plain JSON values.

        Raises:
            RuntimeError: there was an answer already.
        """
        self._take()
        try:
            data = encode_result(self._request_id, value)
        except Exception:
            # A result that is no JSON is our bug; the client still gets its one answer.
            log.exception("a result cannot be encoded")
            data = encode_error(self._request_id, InternalError("internal error"))
        self.peer.answer(Outgoing(data))

    def error(self, error: RpcError) -> None:
        """Answer with an error.

        Raises:
            RuntimeError: there was an answer already.
        """
        self._take()
        self.peer.answer(Outgoing(encode_error(self._request_id, error)))

    def _take(self) -> None:
        if self._done:
            raise RuntimeError(f"request {self._request_id!r} is answered twice")
        self._done = True
        self.peer.answered()
