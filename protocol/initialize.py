"""The handshake.

Its usual form is read without the validator, and its answer is written without a model
(``transport.handshake``): to build the machinery for that would take a tenth of the time to the first answer.
"""

from __future__ import annotations

from typing import Any, Self, cast

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

    @classmethod
    def from_wire(cls, value: object) -> Self:
        """See ``Wire.from_wire``."""
        return cast("Self | None", _usual(value)) or super().from_wire(value)


class InitializeResult(Wire):
    """``userAgent`` is ``<client>/<protocol version> (<os>; <arch>) spoold/<version>``."""

    user_agent: str
    codex_home: str = Field(description="The daemon's home folder, absolute.")
    platform_family: str
    platform_os: str


def _usual(value: Any) -> InitializeParams | None:
    """What the validator would give, or None where it has to decide."""
    match value:
        case {"clientInfo": {"name": str(name), "version": str(version)}}:
            title = value["clientInfo"].get("title")
            capabilities = value.get("capabilities")
        case _:
            return None
    if not (title is None or isinstance(title, str)):
        return None
    info = ClientInfo.model_construct(name=name, title=title, version=version)
    if capabilities is None:
        return InitializeParams.model_construct(client_info=info)
    if not isinstance(capabilities, dict):
        return None
    experimental = capabilities.get("experimentalApi", False)
    opted_out = capabilities.get("optOutNotificationMethods")
    if not isinstance(experimental, bool) or not (opted_out is None or _is_strings(opted_out)):
        return None
    wanted = Capabilities.model_construct(
        experimental_api=experimental, opt_out_notification_methods=opted_out
    )
    return InitializeParams.model_construct(client_info=info, capabilities=wanted)


def _is_strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)
