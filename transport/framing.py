"""Line framing for stdio: bytes in, messages out, no I/O.

One message is one line. What is waiting for its newline lies in one growing buffer; only new bytes are
searched, so the cost is linear however the bytes are cut. A line over the limit is given up as soon as the
limit is reached: its bytes are let go, and everything up to its newline is skipped without being kept.
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_MESSAGE_BYTES = 128 * 1024 * 1024
"""The longest message that is read, in bytes, on every transport."""


@dataclass(frozen=True, slots=True)
class TooLong:
    """Stands in the sequence of messages for a line that was given up.

    Attributes:
        limit: the limit it broke, in bytes.
    """

    limit: int


class LineFramer:
    """Cuts a byte stream into lines. Blank lines are dropped, CRLF is accepted.

    Args:
        limit: the longest line in bytes, without its newline.
    """

    def __init__(self, limit: int = MAX_MESSAGE_BYTES) -> None:
        self.limit = limit
        # Invariant: holds no newline and never more than ``limit`` bytes; empty while skipping.
        self._partial = bytearray()
        self._skipping = False

    def feed(self, data: bytes) -> list[bytes | TooLong]:
        """Take bytes as they arrived; give the messages they complete, in order."""
        messages: list[bytes | TooLong] = []
        start = 0
        while (end := data.find(b"\n", start)) >= 0:
            if self._skipping:
                self._skipping = False
            elif len(self._partial) + end - start > self.limit:
                self._partial = bytearray()
                messages.append(TooLong(self.limit))
            elif self._partial:
                self._partial += memoryview(data)[start:end]
                self._add(messages, bytes(self._partial))
                self._partial = bytearray()
            else:
                self._add(messages, data[start:end])
            start = end + 1
        if not self._skipping and start < len(data):
            if len(self._partial) + len(data) - start > self.limit:
                self._partial = bytearray()
                self._skipping = True
                messages.append(TooLong(self.limit))
            else:
                self._partial += memoryview(data)[start:]
        return messages

    def finish(self) -> list[bytes | TooLong]:
        """The stream has ended: a last line without newline counts as a message."""
        messages: list[bytes | TooLong] = []
        if self._partial:
            self._add(messages, bytes(self._partial))
            self._partial = bytearray()
        self._skipping = False
        return messages

    @staticmethod
    def _add(messages: list[bytes | TooLong], line: bytes) -> None:
        if line.endswith(b"\r"):
            line = line[:-1]
        if line and not line.isspace():
            messages.append(line)
