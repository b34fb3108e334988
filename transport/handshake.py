"""``initialize``: who the client is and what it opts into."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from protocol.errors import InvalidRequest
from protocol.initialize import PROTOCOL_VERSION, InitializeParams, InitializeResult
from transport.method import Call, Method, MethodTable


def initialize(call: Call) -> None:
    """Answer, and only then let the client take part: its first message is the answer."""
    params: InitializeParams = call.params
    peer = call.peer
    if peer.initialised:
        raise InvalidRequest("Already initialized")
    name = params.client_info.name
    if any((char < " " and char != "\t") or char == "\x7f" for char in name):
        raise InvalidRequest(f"Invalid clientInfo.name: '{name}'. Must be a valid HTTP header value.")
    call.reply.result(
        {  # an InitializeResult: see its module
            "userAgent": (
                f"{name}/{PROTOCOL_VERSION} ({operating_system()}; {os.uname().machine}) "
                f"spoold/{call.daemon.version}"
            ),
            "codexHome": str(call.daemon.home),
            "platformFamily": "unix",
            "platformOs": "linux",
        }
    )
    peer.client_name = name
    if params.capabilities is not None:
        peer.experimental = params.capabilities.experimental_api
        peer.opted_out = frozenset(params.capabilities.opt_out_notification_methods or ())
    peer.initialised = True
    call.daemon.peer_ready(peer)


@cache
def operating_system() -> str:
    """Name and version of the operating system, as ``Debian GNU/Linux 12``."""
    try:
        text = Path("/etc/os-release").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return f"Linux {os.uname().release}"
    values = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    name = values.get("NAME", "Linux").strip('"')
    version = values.get("VERSION_ID", "").strip('"')
    return f"{name} {version}".strip()


HANDSHAKE = Method(
    "initialize", InitializeParams, InitializeResult, "connection", "stable", "inline", initialize
)
"""The row of the one method that works before the handshake."""

GREETING: MethodTable = {HANDSHAKE.name: HANDSHAKE}
"""The method table of a daemon that is not complete yet."""
