"""What the command line tells the daemon, and how the daemon says that it cannot start."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


class StartError(Exception):
    """The daemon cannot start. The text is one line for the person who started it; exit code 1."""


class OptionError(StartError):
    """An option has a value it cannot have. The text is one line that names the option; exit code 2."""


@dataclass(frozen=True, slots=True)
class WebSocketAuthOptions:
    """The ``--ws-*`` options as they were given, unchecked; None where not given.

    Attributes:
        mode: ``capability-token`` or ``signed-bearer-token``.
        token_file: file with the capability token.
        token_sha256: SHA-256 of the capability token, in hex.
        shared_secret_file: file with the secret that signs bearer tokens.
        issuer: ``iss`` that a bearer token must have.
        audience: ``aud`` that a bearer token must have.
        max_clock_skew_seconds: tolerance for ``exp`` and ``nbf``.
    """

    mode: str | None = None
    token_file: str | None = None
    token_sha256: str | None = None
    shared_secret_file: str | None = None
    issuer: str | None = None
    audience: str | None = None
    max_clock_skew_seconds: int | None = None


@dataclass(frozen=True, slots=True)
class DaemonOptions:
    """One run of the daemon.

    Attributes:
        home: the chosen home folder, absolute; it need not exist yet.
        overrides: ``key=value`` settings, strongest last.
        listens: where to listen, as URLs that are not checked yet; never empty.
        ws_auth: how websocket clients prove who they are.
    """

    home: Path
    overrides: tuple[str, ...] = ()
    listens: tuple[str, ...] = ("stdio://",)
    ws_auth: WebSocketAuthOptions = WebSocketAuthOptions()
