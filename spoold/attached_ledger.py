"""What one client has asked and was asked, as far as it must be told when the daemon that served it is gone.

Sans I/O: the lines that pass in both directions are shown to it. It keeps ids, and of the handshake the line,
because the next daemon must be greeted in the client's name.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from protocol.errors import InternalError, ParseError
from protocol.jsonrpc import (
    Malformed,
    Notification,
    Request,
    RequestId,
    Response,
    encode_error,
    encode_notification,
    parse,
)

# Nearly everything that a daemon sends is a notification or a result, and both can be told by how they begin.
_NOTE = re.compile(rb'\{"method":"(?!serverRequest/resolved")[^"]*","params":')
_RESULT = re.compile(rb'\{"id":(-?\d+|"(?:[^"\\]|\\.)*"),"result":')

_RESOLVED = "serverRequest/resolved"
_WARNING = "warning"


@dataclass(slots=True)
class _Handshake:
    line: bytes
    id: RequestId
    unwanted: frozenset[str]
    # Invariant: once True, the client has the answer and is given no other one.
    done: bool = False


class Ledger:
    """See the module.

    Attributes:
        in_flight: requests of the client without an answer, by id; a client may use an id twice.
    """

    def __init__(self) -> None:
        self.in_flight: Counter[RequestId] = Counter()
        self._handshake: _Handshake | None = None
        # Questions of the daemon that are open, with their threads.
        self._asked: dict[RequestId, str] = {}
        # Invariant: True from a greeting in the client's name to its answer, which the client does not get.
        self._greeting = False

    def sent(self, line: bytes) -> bytes | None:
        """A line of the client, before it is passed on.

        Returns:
            the answer, for a line that cannot be passed on because it is no text.
        """
        match parse(line):
            case Request(id=request_id, method=method, params=params):
                self.in_flight[request_id] += 1
                if method == "initialize" and self._handshake is None:
                    self._handshake = _Handshake(line, request_id, _unwanted(params))
            case Malformed(reason=reason):
                try:
                    line.decode()
                except UnicodeDecodeError:
                    return encode_error(None, ParseError(reason))
            case Notification() | Response():
                pass
        return None

    def received(self, message: bytes) -> bool:
        """A message of the daemon, before it is passed on; False for one that the client must not get."""
        if _NOTE.match(message):
            return True
        if result := _RESULT.match(message):
            found = parse(message[: result.end()] + b"null}")
        else:
            found = parse(message)
        match found:
            case Response(id=request_id, failed=failed):
                return self._answered(request_id, failed=failed)
            case Request(id=request_id, params={"threadId": str(thread_id)}):
                self._asked[request_id] = thread_id
            case Notification(method="serverRequest/resolved", params={"requestId": request_id}):
                self._asked.pop(request_id, None)
            case _:
                pass
        return True

    def greeting(self) -> bytes | None:
        """The line with which to begin at the next daemon; None if the client has not begun itself.

        Where the client has its answer already, the next one is kept from it.
        """
        if self._handshake is None:
            return None
        self._greeting = self._handshake.done
        return self._handshake.line

    @property
    def greets(self) -> bool:
        """Whether the client must not get the answer to the greeting."""
        return self._greeting

    def losses(self, pid: int, now_ms: int) -> list[bytes]:
        """The daemon is gone: what to tell the client about requests and questions that were open.

        Args:
            pid: the process that is gone.
            now_ms: wall clock.
        """
        lost: list[bytes] = []
        error = InternalError(
            f"the daemon (process {pid}) ended before it answered; this may have been done or not",
            {"reason": "ownerLost"},
        )
        handshake = self._handshake
        for request_id, count in list(self.in_flight.items()):
            awaited = handshake is not None and not handshake.done and handshake.id == request_id
            if awaited:
                # The greeting repeats it: its answer is still to come.
                self.in_flight[request_id] = 1
            else:
                del self.in_flight[request_id]
            lost += [encode_error(request_id, error)] * (count - awaited)
        if self._wants(_RESOLVED):
            lost += [
                encode_notification(_RESOLVED, {"threadId": thread_id, "requestId": request_id}, now_ms)
                for request_id, thread_id in self._asked.items()
            ]
        self._asked.clear()
        return lost

    def warning(self, pid: int, now_ms: int) -> list[bytes]:
        """What a client that has shaken hands is told once there is a daemon again."""
        if not self._wants(_WARNING):
            return []
        text = (
            f"The daemon (process {pid}) has ended and another has taken its place. Turns that were running "
            "are interrupted and subscriptions are gone: resume each thread (thread/resume) to go on with it."
        )
        return [encode_notification(_WARNING, {"threadId": None, "message": text}, now_ms)]

    def _wants(self, method: str) -> bool:
        handshake = self._handshake
        return handshake is not None and handshake.done and method not in handshake.unwanted

    def _answered(self, request_id: RequestId, *, failed: bool) -> bool:
        handshake = self._handshake
        if handshake is not None and handshake.id == request_id:
            if self._greeting:
                self._greeting = False
                return False
            if not handshake.done:
                handshake.done = not failed
                if failed:
                    self._handshake = None
        if self.in_flight[request_id] > 1:
            self.in_flight[request_id] -= 1
        else:
            del self.in_flight[request_id]
        return True


def _unwanted(params: object) -> frozenset[str]:
    match params:
        case {"capabilities": {"optOutNotificationMethods": [*names]}}:
            return frozenset(name for name in names if isinstance(name, str))
    return frozenset()
