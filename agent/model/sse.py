"""Server-sent events from bytes, incrementally and fast.

Why an own parser: httpx2's ``EventSource`` decodes text, splits lines and builds a dataclass per event,
about 4 microseconds each, and it refuses a stream whose content type is wrong. This one works on bytes, finds
event boundaries (an empty line) with one search per chunk, and has a fast path for the two shapes that model
servers send, ``data: ...`` and ``event: ...`` + ``data: ...``: 0.6 to 1.5 microseconds each.

Works on bytes because no byte of a multi-byte UTF-8 character is ever CR or LF: a chunk boundary inside a
character needs no care. The JSON reader that gets the data checks the encoding.

Three departures from the specification: ``id`` and ``retry`` are ignored (a model stream cannot be
resumed), an event of comments only is none, and what stands before a clean end without the final empty
line still counts (some servers leave it out).
"""

from __future__ import annotations

MAX_EVENT_BYTES = 16 * 1024 * 1024
"""Above this, one event is not a message from a model server but an attack or a defect."""

ServerEvent = tuple[bytes, bytes]
"""``(event, data)``: the event's name (empty if none was given) and its data lines joined by LF."""

_BOM = b"\xef\xbb\xbf"


class SSEParser:
    """Feed it chunks, get whole events.

    Attributes:
        overflowed: an event exceeded ``max_event_bytes``. What came before it was returned; nothing comes
            after it, and the connection should be dropped.
    """

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max = max_event_bytes
        # Invariant: holds no b"\r" and, between calls, no b"\n\n".
        self._buffer = bytearray()
        self._after_cr = False
        self._started = False
        self.overflowed = False

    def feed(self, chunk: bytes) -> list[ServerEvent]:
        """The events that ``chunk`` completes, in order."""
        if self.overflowed:
            return []
        if self._after_cr or b"\r" in chunk:
            chunk = self._without_cr(chunk)
        buffer = self._buffer
        searched = max(0, len(buffer) - 1)
        buffer += chunk
        if not self._started and not self._skip_bom():
            return []
        end = buffer.rfind(b"\n\n", searched)
        if end < 0:
            self._check_pending()
            return []
        whole = bytes(buffer[:end])
        del buffer[: end + 2]
        events = self._parse_blocks(whole)
        if not self.overflowed:
            self._check_pending()
        return events

    def finish(self) -> list[ServerEvent]:
        """The event that a clean end of the stream completes, if any."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return [] if self.overflowed else self._parse_blocks(rest)

    def _without_cr(self, chunk: bytes) -> bytes:
        """CRLF and CR as LF, where a CRLF may be cut between two chunks."""
        if not chunk:
            return chunk
        ends_with_cr = chunk.endswith(b"\r")
        if self._after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]  # the CR before it already stood for the whole line end
        self._after_cr = ends_with_cr
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _skip_bom(self) -> bool:
        """Drop a byte order mark; False while the first bytes may still become one."""
        head = bytes(self._buffer[:3])
        if len(head) < 3 and _BOM.startswith(head):
            return False
        if head == _BOM:
            del self._buffer[:3]
        self._started = True
        return True

    def _check_pending(self) -> None:
        # One byte more: a pending line end is not part of the event.
        if len(self._buffer) > self._max + 1:
            self.overflowed = True
            self._buffer.clear()

    def _parse_blocks(self, whole: bytes) -> list[ServerEvent]:
        events: list[ServerEvent] = []
        for block in whole.split(b"\n\n"):
            if len(block) > self._max + 1:
                self.overflowed = True
                self._buffer.clear()
                break
            name = b""
            rest = block
            if block.startswith(b"event: "):
                line, _, rest = block.partition(b"\n")
                name = line[7:]
            if rest.startswith(b"data: ") and b"\n" not in rest:
                events.append((name, rest[6:]))
            else:
                event = _parse_block(block)
                if event is not None:
                    events.append(event)
        return events


def _parse_block(block: bytes) -> ServerEvent | None:
    """One event from its lines, any shape; None if it has no data."""
    name = b""
    data: list[bytes] = []
    for line in block.split(b"\n"):
        field, _, value = line.partition(b":")
        if value.startswith(b" "):
            value = value[1:]
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value
    return (name, b"\n".join(data)) if data else None
