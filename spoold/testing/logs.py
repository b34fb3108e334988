"""What the daemon of a simulated world logs: warnings and errors are events of the world."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from spoold.testing.trace import Trace

_ROOMS = ("spoold", "transport", "actors", "agent", "persistence", "protocol")


@contextmanager
def listening_to_logs(trace: Trace, complain: Callable[[str], None]) -> Iterator[None]:
    """Inside, what is logged goes into the trace; ``complain`` is called with each error with a traceback."""
    handler = _LogToTrace(trace, complain)
    rooms = [logging.getLogger(room) for room in _ROOMS]
    before = [each.propagate for each in rooms]
    for each in rooms:
        each.addHandler(handler)
        each.propagate = False
    try:
        yield
    finally:
        for each, propagate in zip(rooms, before, strict=True):
            each.removeHandler(handler)
            each.propagate = propagate


class _LogToTrace(logging.Handler):
    def __init__(self, trace: Trace, complain: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._trace = trace
        self._complain = complain

    def emit(self, record: logging.LogRecord) -> None:
        """Note it."""
        text = record.getMessage()
        if record.exc_info is not None and record.levelno >= logging.ERROR:
            text = f"{text}: {record.exc_info[1]!r}"
            self._complain(text)
        self._trace.note(f"log {record.levelname.lower()}", text)
