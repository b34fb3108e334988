"""What a process wrote, in bounded memory: the head and the tail stay, the middle is counted and dropped."""

from __future__ import annotations

DEFAULT_LIMIT = 1024 * 1024
"""Bytes kept of one command's output."""


class OutputBuffer:
    """The first and the last half of ``limit`` bytes of a stream of any length."""

    def __init__(self, limit: int = DEFAULT_LIMIT) -> None:
        self._half = limit // 2
        self._head = bytearray()
        # Invariant: at most two halves long, so that trimming is rare and the whole costs O(n).
        self._tail = bytearray()
        self.total = 0
        """Bytes written so far, kept or not."""

    def write(self, data: bytes) -> None:
        """Take the next bytes."""
        self.total += len(data)
        room = self._half - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        self._tail += data
        if len(self._tail) > 2 * self._half:
            del self._tail[: -self._half]

    def text(self) -> str:
        """Everything kept as UTF-8 text; bytes that are not are replaced."""
        return self.kept().decode("utf-8", "replace")

    def kept(self) -> bytes:
        """Everything kept, with a line in the gap that says how much is missing."""
        tail = bytes(self._tail[-self._half :]) if self._half else b""
        missing = self.total - len(self._head) - len(tail)
        gap = f"\n[... {missing} bytes left out ...]\n".encode() if missing else b""
        return bytes(self._head) + gap + tail


BYTES_PER_TOKEN = 4
"""The usual rough measure: models count tokens, we count bytes."""


def token_count(size: int) -> int:
    """About how many tokens ``size`` bytes of text are."""
    return -(-size // BYTES_PER_TOKEN)


def shortened(text: str, max_tokens: int) -> str:
    """``text`` with its middle taken out so that about ``max_tokens`` stay."""
    data = text.encode("utf-8", "replace")
    limit = max_tokens * BYTES_PER_TOKEN
    if len(data) <= limit:
        return text
    half = limit // 2
    head = data[:half].decode("utf-8", "ignore")
    tail = data[-half:].decode("utf-8", "ignore")
    return f"{head}\u2026{token_count(len(data) - 2 * half)} tokens truncated\u2026{tail}"
