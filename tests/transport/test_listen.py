from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest
import trio
import trio.testing
from trio_websocket import wrap_client_stream

from tests.transport.clients import Client, http, upgrade_request
from tests.transport.fakes import INITIALIZE, gateway
from transport.auth import CapabilityToken
from transport.listen import ListenError, control_socket, open_listeners
from transport.listen_url import ListenOff, ListenStdio, ListenUnix, ListenWebSocket, parse_listen


@pytest.mark.parametrize(
    ("url", "listen"),
    [
        ("stdio://", ListenStdio()),
        ("off", ListenOff()),
        ("unix://", ListenUnix(None)),
        ("unix:///run/x.sock", ListenUnix(Path("/run/x.sock"))),
        ("ws://127.0.0.1:0", ListenWebSocket("127.0.0.1", 0)),
        ("ws://[::1]:8080", ListenWebSocket("::1", 8080)),
        ("ws://0.0.0.0:80", ListenWebSocket("0.0.0.0", 80)),
    ],
)
def test_listen_urls_are_understood(url: str, listen: object) -> None:
    assert parse_listen(url) == listen


@pytest.mark.parametrize("url", ["", "http://127.0.0.1:1", "stdio", "wss://127.0.0.1:1", "OFF"])
def test_other_schemes_are_refused_with_what_is_supported(url: str) -> None:
    with pytest.raises(ValueError, match=r"^unsupported --listen URL `.*`; expected stdio://, ws://IP:PORT"):
        parse_listen(url)


@pytest.mark.parametrize(
    "address",
    [
        "localhost:80",
        "127.0.0.1",
        "127.0.0.1:",
        "127.0.0.1:65536",
        "127.0.0.1:-1",
        "127.0.0.1:8/x",
        "::1:80",
        ":80",
    ],
)
def test_addresses_that_are_no_ip_and_port_are_refused(address: str) -> None:
    with pytest.raises(ValueError, match="expected ws://IP:PORT"):
        parse_listen(f"ws://{address}")


async def test_an_address_in_use_is_one_line_and_leaves_nothing_bound(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        path = tmp_path / "x.sock"
        with pytest.raises(
            ListenError, match=rf"^cannot listen on ws://127.0.0.1:{port}: Address already in use$"
        ):
            await open_listeners([ListenUnix(path), ListenWebSocket("127.0.0.1", port)], tmp_path)
        assert not path.exists()


async def test_other_machines_need_authentication(tmp_path: Path) -> None:
    with pytest.raises(ListenError, match="without authentication"):
        await open_listeners([parse_listen("ws://0.0.0.0:0")], tmp_path)
    listeners = await open_listeners([parse_listen("ws://0.0.0.0:0")], tmp_path, CapabilityToken(b"x" * 32))
    await listeners.aclose()


async def test_stdio_can_be_named_once(tmp_path: Path) -> None:
    with pytest.raises(ListenError, match="only once"):
        await open_listeners([ListenStdio(), ListenStdio()], tmp_path)


async def test_nothing_to_listen_on_is_served_until_the_end(tmp_path: Path, nursery: trio.Nursery) -> None:
    listeners = await open_listeners([ListenOff()], tmp_path)
    assert listeners.addresses == []
    await nursery.start(listeners.serve, gateway()[1])
    listeners.close()


async def test_the_control_socket_is_the_owners_alone_and_serves(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    daemon, shared = gateway()
    listeners = await open_listeners([parse_listen("unix://")], tmp_path)
    path = control_socket(tmp_path)
    assert listeners.addresses == [f"unix://{path}"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    await nursery.start(listeners.serve, shared)
    async with await trio.open_unix_socket(str(path)) as stream, trio.open_nursery() as clients:
        wrapped = trio.StapledStream(stream, stream)
        one = Client(await wrap_client_stream(clients, wrapped, "localhost", "/"))
        assert "result" in await one.call("initialize", INITIALIZE)
        await one.socket.aclose()
    await daemon.until(lambda: daemon.gone)
    listeners.close()
    with trio.fail_after(10):
        while path.exists():
            await trio.testing.wait_all_tasks_blocked()


async def test_a_socket_left_by_a_dead_process_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    listeners = await open_listeners([ListenUnix(path)], tmp_path)
    with pytest.raises(ListenError, match="another process listens there"):
        await open_listeners([ListenUnix(path)], tmp_path)
    await listeners.aclose()
    assert not path.exists()


async def test_what_is_no_socket_is_never_removed(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(ListenError, match="is no socket"):
        await open_listeners([ListenUnix(path)], tmp_path)
    assert path.read_text() == "data"


async def test_a_path_too_long_for_a_socket_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ListenError, match="too long"):
        await open_listeners([ListenUnix(tmp_path / ("x" * 120))], tmp_path)


async def test_the_file_mode_mask_of_the_process_is_unchanged(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        listeners = await open_listeners([ListenUnix(tmp_path / "x.sock")], tmp_path)
        await listeners.aclose()
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)


async def test_a_token_is_asked_for_the_upgrade_and_not_for_probes(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    _, shared = gateway()
    (tmp_path / "token").write_text("  secret\n")
    token = CapabilityToken.from_file(tmp_path / "token")
    listeners = await open_listeners([parse_listen("ws://127.0.0.1:0")], tmp_path, token)
    await nursery.start(listeners.serve, shared)
    port = int(listeners.addresses[0].rpartition(":")[2])
    for headers, body in (
        ([], b"missing websocket bearer token"),
        ([b"Authorization: Bearer wrong"], b"invalid websocket bearer token"),
        ([b"Authorization: Basic secret"], b"invalid authorization header"),
        ([b"Authorization: Bearer"], b"invalid authorization header"),
        ([b"Authorization: Bearer \xe4\xf6"], b"invalid websocket bearer token"),
    ):
        assert await http(port, upgrade_request(*headers)) == (b"HTTP/1.1 401 ", body)
    assert await http(port, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n") == (b"HTTP/1.1 200 ", b"")
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(upgrade_request(b"authorization: bEARER secret"))
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 101 ")
    listeners.close()
