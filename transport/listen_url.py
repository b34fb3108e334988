"""``--listen``: what its values mean."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ListenStdio:
    """``stdio://``."""


@dataclass(frozen=True, slots=True)
class ListenWebSocket:
    """``ws://IP:PORT``; port 0 lets the system choose."""

    host: str
    port: int

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return ipaddress.ip_address(self.host).is_loopback


@dataclass(frozen=True, slots=True)
class ListenUnix:
    """``unix://[PATH]``; None stands for the control socket in the home folder."""

    path: Path | None


@dataclass(frozen=True, slots=True)
class ListenOff:
    """``off``: no listener of this kind of its own."""


Listen = ListenStdio | ListenWebSocket | ListenUnix | ListenOff


def parse_listen(url: str) -> Listen:
    """Read one value of ``--listen``.

    Raises:
        ValueError: with the text for the user.
    """
    if url == "off":
        return ListenOff()
    if url == "stdio://":
        return ListenStdio()
    if url.startswith("unix://"):
        rest = url.removeprefix("unix://")
        return ListenUnix(Path(rest).absolute() if rest else None)
    if url.startswith("ws://"):
        listen = _websocket(url.removeprefix("ws://"))
        if listen is None:
            raise ValueError(f"invalid websocket --listen URL `{url}`; expected ws://IP:PORT")
        return listen
    raise ValueError(
        f"unsupported --listen URL `{url}`; expected stdio://, ws://IP:PORT, unix://, unix://PATH or off"
    )


def _websocket(address: str) -> ListenWebSocket | None:
    host, colon, port = address.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        return None
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        ip = ipaddress.ip_address(host[1:-1] if bracketed else host)
    except ValueError:
        return None
    if (ip.version == 6) != bracketed:
        return None
    return ListenWebSocket(str(ip), int(port))
