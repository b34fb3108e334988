"""The client's end of a websocket over a unix socket: frames however they are cut, and who is there."""

from __future__ import annotations

import os
import random
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from transport import unix_client, websocket
from transport.unix import bind_unix_listener, connect_unix, listener_pid, pid_listening_at
from transport.unix_client import Damaged, FrameReader, NotOurs, client_frame, connect_spoold
from transport.websocket import text_frames

TEXT, CLOSE = 0x1, 0x8


@pytest.fixture
def place() -> Iterator[Path]:
    """Where a socket's path is short enough."""
    with tempfile.TemporaryDirectory(prefix="unix-") as folder:
        yield Path(folder) / "here.sock"


def test_messages_come_out_as_they_went_in_however_the_bytes_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "LONGEST_FRAME", 70_000)
    chance = random.Random(5)
    messages = [os.urandom(size) for size in (0, 1, 125, 126, 65535, 65536, 70_000, 70_001, 300_000, 3)]
    data = text_frames(messages)
    for _ in range(20):
        reader, got, position = FrameReader(), [], 0
        while position < len(data):
            step = chance.choice([1, 2, 3, 100, 65536, 10**6])
            got += reader.feed(data[position : position + step])
            position += step
        assert got == [(TEXT, message) for message in messages], "seed 5"


@pytest.mark.parametrize(
    "data", [b"\x81\x80", b"\xc1\x00", b"\x82\x00", b"\x83\x00", b"\x81\x7f" + b"\xff" * 8]
)
def test_what_no_server_of_ours_sends_ends_the_connection(data: bytes) -> None:
    with pytest.raises(Damaged):
        FrameReader().feed(data)


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
def test_a_frame_of_the_client_is_read_by_the_library(size: int) -> None:
    from wsproto.frame_protocol import FrameProtocol

    protocol = FrameProtocol(client=False, extensions=[])
    protocol.receive_bytes(client_frame(TEXT, b"a" * size))
    assert "".join(str(frame.payload) for frame in protocol.received_frames()) == "a" * size


async def test_who_listens_is_known_before_anything_is_said(place: Path) -> None:
    assert pid_listening_at(place) == 0
    listener = bind_unix_listener(place, own_folder=False)
    assert pid_listening_at(place) == os.getpid()
    async with await connect_unix(place) as stream:
        assert listener_pid(stream) == os.getpid()
    await listener.aclose()
    assert pid_listening_at(place) == 0


async def answer_with(listener: trio.abc.Listener[trio.SocketStream], data: bytes) -> None:
    async with await listener.accept() as stream:
        await stream.receive_some()
        await stream.send_all(data)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n", NotOurs),
        (b"HTTP/1.1 400 Bad\r\nx-spoold-version: 1\r\n\r\n", NotOurs),
        (b"HTTP/1.1 101 Swi", ConnectionResetError),
        (b"", ConnectionResetError),
        (b"x" * 100_000, ConnectionResetError),
    ],
)
async def test_who_does_not_answer_as_a_spoold_is_not_spoken_to(
    place: Path, nursery: trio.Nursery, data: bytes, error: type[Exception]
) -> None:
    listener = bind_unix_listener(place, own_folder=False)
    nursery.start_soon(answer_with, listener, data)
    with pytest.raises(error):
        await connect_spoold(place, "/")
    await listener.aclose()


async def test_who_does_not_answer_at_all_is_not_waited_for_for_ever(
    place: Path, autojump_clock: trio.testing.MockClock
) -> None:
    listener = bind_unix_listener(place, own_folder=False)
    with pytest.raises(TimeoutError):
        await connect_spoold(place, "/")
    assert trio.current_time() < 2 * unix_client.HANDSHAKE_TIMEOUT
    await listener.aclose()


async def test_messages_before_a_close_frame_are_given_then_the_end(
    place: Path, nursery: trio.Nursery
) -> None:
    listener = bind_unix_listener(place, own_folder=False)
    head = b"HTTP/1.1 101 Switching Protocols\r\nX-Spoold-Version: 1\r\n\r\n"
    nursery.start_soon(answer_with, listener, head + text_frames([b"one", b"two"]) + b"\x88\x02\x03\xe9")
    there = await connect_spoold(place, "/")
    assert await there.receive() == [b"one", b"two"]
    assert await there.receive() == []
    await there.aclose()
    await listener.aclose()


async def test_a_path_too_long_for_a_socket_leads_to_a_private_short_one(tmp_path: Path) -> None:
    path = tmp_path / ("d" * 100) / "control.sock"
    listener = bind_unix_listener(path, own_folder=True, link_when_long=True)
    place = path.readlink()
    assert (place.parent.stat().st_mode & 0o777, place.stat().st_mode & 0o777) == (0o700, 0o600)
    async with await connect_unix(path) as stream:
        assert listener_pid(stream) == os.getpid()
    with pytest.raises(OSError, match="another process listens there"):
        bind_unix_listener(path, own_folder=True, link_when_long=True)
    await listener.aclose()
    assert not path.is_symlink()
    assert not place.parent.exists()


@pytest.mark.parametrize("leads_nowhere", [False, True])
async def test_a_link_that_a_dead_process_left_is_replaced(tmp_path: Path, *, leads_nowhere: bool) -> None:
    path = tmp_path / ("d" * 100) / "control.sock"
    path.parent.mkdir()
    with tempfile.TemporaryDirectory(prefix="elsewhere-") as folder:
        place = Path(folder) / "name"
        if not leads_nowhere:
            with socket.socket(socket.AF_UNIX) as dead:
                dead.bind(str(place))
        path.symlink_to(place)
        listener = bind_unix_listener(path, own_folder=True, link_when_long=True)
        assert listener.replaced
        assert path.readlink() != place
        await listener.aclose()
        assert place.exists() != leads_nowhere, "what is not ours is left alone"


async def test_a_link_to_what_is_no_socket_is_never_removed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("kept")
    path = tmp_path / "control.sock"
    path.symlink_to(precious)
    with pytest.raises(OSError, match="no socket"):
        bind_unix_listener(path, own_folder=False)
    assert precious.read_text() == "kept"
    assert path.is_symlink()
