"""What happened in a world, in order: two runs of one seed have it in common, byte for byte."""

from __future__ import annotations

from collections.abc import Mapping

import trio


class Trace:
    """One line per event: the time in seconds, what it is, and the event.

    Args:
        neutral: what a text is replaced by that differs from run to run (temporary folders).
    """

    def __init__(self, neutral: Mapping[str, str]) -> None:
        self.lines: list[str] = []
        self._neutral = dict(neutral)

    def note(self, what: str, text: str | bytes = "") -> None:
        """Something happened."""
        if isinstance(text, bytes):
            text = text.decode("utf-8", "replace")
        for real, name in self._neutral.items():
            text = text.replace(real, name)
        self.lines.append(f"{trio.current_time():.6f} {what} {text}")

    def text(self) -> str:
        """All of it."""
        return "\n".join(self.lines) + "\n"

    def tail(self, count: int = 40, width: int = 200) -> str:
        """The last events, shortened: for the message of a failure."""
        return "\n".join(line[:width] for line in self.lines[-count:])
