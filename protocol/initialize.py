"""The handshake."""

from __future__ import annotations

from pydantic import Field

from protocol.base import Wire

PROTOCOL_VERSION = "0.169.0"
"""The version of the reference whose protocol we speak; clients decide by it which fields they send."""


class ClientInfo(Wire):
    """Who connects. ``name`` must be a legal HTTP header value."""

    name: str
    title: str | None = None
    version: str


class Capabilities(Wire):
    """What the client opts into; see the connection's docs for each."""

    experimental_api: bool = False
    opt_out_notification_methods: list[str] | None = None


class InitializeParams(Wire):
    """``initialize``."""

    client_info: ClientInfo
    capabilities: Capabilities | None = None


class InitializeResult(Wire):
    """``userAgent`` is ``<client>/<protocol version> (<os>; <arch>) spoold/<version>``."""

    user_agent: str
    codex_home: str = Field(description="The daemon's home folder, absolute.")
    platform_family: str
    platform_os: str
