"""How much Python a piece of work takes, in lines: the same in every run, however busy the machine is."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

_ROOT = Path(__file__).resolve().parent.parent.parent
_ROOMS = tuple(f"{_ROOT}/{room}/" for room in ("actors", "agent", "persistence", "protocol"))


@contextmanager
def counted_lines() -> Iterator[Counter[str]]:
    """Counts the lines of the rooms that this thread runs, by function; every turn of a loop counts anew.

    What is done in C (copying a tuple, comparing two lists) counts once, whatever its size.
    """
    lines: Counter[str] = Counter()

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if event == "call" and not frame.f_code.co_filename.startswith(_ROOMS):
            return None
        if event in ("call", "line"):
            lines[frame.f_code.co_qualname] += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield lines
    finally:
        sys.settrace(before)
