"""Logging: to stderr only, never to stdout, where the protocol may be.

The rooms log through ``logging``. Writing to stderr can block (a client may start us with a pipe that it
never reads), and the event loop must not: a record is formatted where it is made and written by a thread
of its own, which starts with the first record. When that thread cannot keep up, records are dropped and
counted; when the process ends, what is waiting gets half a second.

``SPOOLD_LOG`` is the level (``debug``, ``info``, ``warning``, ``error``, ``off``); ``SPOOLD_LOG_FORMAT``
is ``text`` or ``json``. The text form needs only the standard library, because an import that no line is
written with would still cost every start.
"""

from __future__ import annotations

import atexit
import collections
import logging
import os
import sys
import threading
from collections.abc import Mapping

_LEVELS: Mapping[str, int] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "off": logging.CRITICAL + 1,
}
_WAITING_LIMIT = 10_000
_LAST_WORDS_SECONDS = 0.5


def log_to_stderr(environ: Mapping[str, str]) -> BackgroundHandler:
    """Send the log of the whole process to stderr. An unknown level or format counts as the default.

    Returns:
        The handler; the daemon need not keep it.
    """
    handler = BackgroundHandler(sys.stderr.fileno())
    handler.setFormatter(_formatter(environ.get("SPOOLD_LOG_FORMAT", "text")))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(_LEVELS.get(environ.get("SPOOLD_LOG", "").strip().lower(), logging.WARNING))
    atexit.register(handler.close)
    return handler


def _formatter(name: str) -> logging.Formatter:
    if name == "json":
        import structlog

        return structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                structlog.stdlib.add_log_level,
                structlog.stdlib.add_logger_name,
                structlog.stdlib.ExtraAdder(),
                structlog.processors.TimeStamper(fmt="iso", utc=True),
            ],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(),
            ],
        )
    return logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S")


class BackgroundHandler(logging.Handler):
    """Writes records to a file descriptor from a daemon thread; ``emit`` never waits for it.

    A descriptor and not a stream: a thread that hangs in a stream's write holds the stream's lock, and the
    interpreter aborts when it cannot flush its streams at the end.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._waiting: collections.deque[str] = collections.deque()
        self._dropped = 0
        self._changed = threading.Condition()
        self._writing = False
        self._thread: threading.Thread | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Queue one record; drop it when too many wait."""
        try:
            line = self.format(record)
        except Exception:
            self.handleError(record)
            return
        with self._changed:
            if len(self._waiting) >= _WAITING_LIMIT:
                self._dropped += 1
                return
            if self._dropped:
                self._waiting.append(f"({self._dropped} log records were dropped: stderr is not being read)")
                self._dropped = 0
            self._waiting.append(line)
            if self._thread is None:
                self._thread = threading.Thread(target=self._write_forever, name="log", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def close(self) -> None:
        """Give what is waiting a moment to be written."""
        with self._changed:
            if self._thread is not None:
                self._changed.wait_for(lambda: not self._waiting and not self._writing, _LAST_WORDS_SECONDS)
        super().close()

    def _write_forever(self) -> None:
        while True:
            with self._changed:
                self._writing = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: bool(self._waiting))
                unwritten = ("\n".join(self._waiting) + "\n").encode(errors="backslashreplace")
                self._waiting.clear()
                self._writing = True
            try:
                while unwritten:
                    unwritten = unwritten[os.write(self._descriptor, unwritten) :]
            except OSError:
                # Nobody reads stderr any more: there is no place left to say so.
                continue
