"""Input that no good client sends: it gets its documented answer, and nothing else on the server notices."""

from __future__ import annotations

import base64
import json
import os
import re
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from spoold.client import Client
from tests.end_to_end.stdio import open_raw
from tests.support.daemon_process import DaemonProcess, open_daemon
from tests.support.every_message import user_text

MIB = 1 << 20
DEEP = 10_000

NO_MESSAGES: list[tuple[str, bytes]] = [
    ("malformed JSON", b'{"id": 1, "method": "thr'),
    ("two values", b'{"id": 1} {"id": 2}'),
    ("an array", b"[]"),
    ("a batch", b'[{"id": 1, "method": "thread/loaded/list", "params": {}}]'),
    ("a number", b"42"),
    ("not a number", b'{"id": 1, "method": "thread/list", "params": {"limit": NaN}}'),
    ("a string", b'"text"'),
    ("null", b"null"),
    ("an empty object", b"{}"),
    ("an id alone", b'{"id": 1}'),
    ("a null id", b'{"id": null, "method": "thread/list", "params": {}}'),
    ("a float id", b'{"id": 1.5, "method": "thread/list", "params": {}}'),
    ("an object id", b'{"id": {}, "method": "thread/list", "params": {}}'),
    ("an id beyond 64 bits", b'{"id": 99999999999999999999, "method": "thread/list", "params": {}}'),
    ("a method that is no string", b'{"id": 1, "method": 5, "params": {}}'),
    ("deep arrays", b"[" * DEEP + b"]" * DEEP),
    ("deep objects", b'{"a":' * DEEP + b"1" + b"}" * DEEP),
    ("deep params", b'{"id": 1, "method": "thread/list", "params": ' + b"[" * DEEP + b"]" * DEEP + b"}"),
    ("unclosed and deep", b"[" * 1_000_000),
    ("invalid UTF-8", b'{"id": 1, "method": "thread/list\xff\xfe", "params": {}}'),
    ("a lone surrogate", b'{"id": 1, "method": "\\ud800", "params": {}}'),
    ("zero bytes", b"\0" * 100),
]

IGNORED: list[tuple[str, bytes]] = [
    ("an unknown notification", b'{"method": "no/such/note", "params": {}}'),
    ("a notification with wrong params", b'{"method": "initialized", "params": 5}'),
    ("an answer nobody waits for", b'{"id": 0, "result": {"decision": "accept"}}'),
    ("an error nobody waits for", b'{"id": "x", "error": {"code": 1, "message": "m"}}'),
]

REFUSED: list[tuple[str, Any, str]] = [
    (
        "no/such/method",
        {},
        r"Invalid request: unknown variant `no/such/method`, expected one of `init",
    ),
    ("", {}, r"Invalid request: unknown variant ``"),
    ("thread/read", {}, r"Invalid request: missing field `threadId`"),
    ("thread/read", None, r"Invalid request: missing field"),
    ("thread/read", [], r"Invalid request: "),
    ("thread/read", "text", r"Invalid request: .*string \"text\""),
    ("thread/read", {"threadId": 5}, r"Invalid request: .*integer `5`, expected a string"),
    ("thread/read", {"threadId": "x" * 5000}, r"invalid thread id|Invalid"),
    ("thread/read", {"threadId": "\0"}, r"invalid thread id|Invalid"),
    ("thread/list", {"limit": -1}, r"Invalid request: .*`-1`"),
    ("thread/list", {"limit": "5"}, r"Invalid request: .*string \"5\""),
    ("thread/list", {"limit": 2**70}, r"Invalid request: "),
    ("thread/list", {"sortKey": "bogus"}, r"Invalid request: unknown variant `bogus`, expected"),
    ("thread/list", {"cursor": "no cursor"}, r"invalid cursor"),
    ("turn/start", {"threadId": "x"}, r"Invalid request: missing field `input`"),
    ("turn/start", {"threadId": "x", "input": [{"type": "smell"}]}, r"Invalid request: .*smell"),
    ("thread/start", {"sandbox": True}, r"Invalid request: "),
    ("thread/start", {"config": {"model": 5}}, r"failed to load configuration: "),
    ("initialize", {"clientInfo": {"name": "again", "version": "1"}}, r"Already initialized"),
]


def request(request_id: Any, method: str, params: Any) -> bytes:
    members = {"id": request_id, "method": method}
    return json.dumps(members if params is None else members | {"params": params}).encode()


# -- standard streams ---------------------------------------------------------------------------------------


async def test_on_stdio_what_is_no_message_is_answered_as_such_and_the_next_one_is_served(
    tmp_path: Path,
) -> None:
    async with open_raw(tmp_path) as raw:
        await raw.shake_hands()
        for name, data in NO_MESSAGES:
            await raw.stdin.send_all(data + b"\n")
            answer = await raw.line()
            assert (answer["id"], answer["error"]["code"]) == (None, -32700), name
            assert answer["error"]["message"].startswith("Parse error"), name
            assert len(json.dumps(answer)) < 2000, f"{name}: the answer repeats the input"
            assert (await raw.ask("thread/loaded/list", {}))["result"]["data"] == [], name


async def test_on_stdio_blank_lines_and_what_needs_no_answer_get_none(tmp_path: Path) -> None:
    async with open_raw(tmp_path) as raw:
        await raw.shake_hands()
        for blank in (b"\n", b"\r\n", b"  \t \n", b"\n" * 1000):
            await raw.stdin.send_all(blank)
        for _, data in IGNORED:
            await raw.stdin.send_all(data + b"\n")
        # `ask` fails when anything else comes first.
        await raw.ask("thread/loaded/list", {})


async def test_on_stdio_wrong_requests_are_refused_one_by_one(tmp_path: Path) -> None:
    async with open_raw(tmp_path) as raw:
        await raw.shake_hands()
        for number, (method, params, pattern) in enumerate(REFUSED):
            await raw.stdin.send_all(request(f"r{number}", method, params) + b"\n")
            answer = await raw.line()
            assert answer["id"] == f"r{number}"
            assert answer["error"]["code"] in {-32600, -32602}, answer
            assert re.search(pattern, answer["error"]["message"]), answer
        await raw.ask("thread/loaded/list", {})


async def test_requests_before_the_handshake_are_refused_and_it_can_follow(tmp_path: Path) -> None:
    async with open_raw(tmp_path) as raw:
        await raw.stdin.send_all(request(1, "thread/list", {}) + b"\n")
        assert (await raw.line())["error"]["message"] == "Not initialized"
        await raw.stdin.send_all(request(2, "initialize", {"clientInfo": {"name": "n"}}) + b"\n")
        assert "missing field `version`" in (await raw.line())["error"]["message"]
        await raw.shake_hands()


async def test_requests_with_the_same_id_are_each_answered_and_ids_keep_their_type(tmp_path: Path) -> None:
    async with open_raw(tmp_path) as raw:
        await raw.shake_hands()
        ids = [7, 7, "7", 7, "", -(2**63), 2**63 - 1, 7]
        await raw.stdin.send_all(b"".join(request(each, "thread/loaded/list", {}) + b"\n" for each in ids))
        assert [(await raw.line())["id"] for _ in ids] == ids


async def test_a_line_of_200_mib_costs_neither_memory_nor_the_connection(tmp_path: Path) -> None:
    async with open_raw(tmp_path) as raw:
        await raw.shake_hands()
        before = peak_memory(raw.process.pid)
        with trio.fail_after(10):
            block = b"x" * MIB
            await raw.stdin.send_all(b'{"id": 1, "method": "')
            for _ in range(200):
                await raw.stdin.send_all(block)
            await raw.stdin.send_all(b'"}\n')
            answer = await raw.line()
        assert (answer["id"], answer["error"]["code"]) == (None, -32700)
        assert f"longer than {128 * MIB} bytes" in answer["error"]["message"]
        grown = peak_memory(raw.process.pid) - before
        assert grown < 300 * MIB, f"{grown / MIB:.0f} MiB for a line that is thrown away"
        await raw.ask("thread/loaded/list", {})


def peak_memory(pid: int) -> int:
    """Bytes of resident memory at the most so far."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))


# -- websocket ----------------------------------------------------------------------------------------------


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[DaemonProcess]:
    async with open_daemon(tmp_path) as daemon:
        yield daemon
        await works(daemon, daemon.client)


async def works(daemon: DaemonProcess, client: Client) -> None:
    """Another client of the same server is served as if nothing had been."""
    thread_id = (await client.call("thread/start", {"ephemeral": True}))["thread"]["id"]
    assert (await client.run_turn(thread_id, "say fine"))["status"] == "completed"
    assert daemon.process.returncode is None


class RawSocket:
    """A websocket client that frames by hand; it masks with zeros."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._rest = b""

    async def frame(self, data: bytes, opcode: int = 1, *, fin: bool = True) -> None:
        size = len(data)
        head = bytes([opcode | (0x80 if fin else 0)])
        if size < 126:
            head += bytes([0x80 | size])
        elif size < 1 << 16:
            head += b"\xfe" + struct.pack("!H", size)
        else:
            head += b"\xff" + struct.pack("!Q", size)
        await self.stream.send_all(head + bytes(4) + data)

    async def _take(self, size: int) -> bytes:
        while len(self._rest) < size:
            data = await self.stream.receive_some(1 << 16)
            if not data:
                raise EOFError
            self._rest += bytes(data)
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken

    async def receive(self) -> tuple[int, bytes]:
        """The next frame of the server: opcode and payload."""
        first, second = await self._take(2)
        size = second
        if size == 126:
            (size,) = struct.unpack("!H", await self._take(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", await self._take(8))
        return first & 0x0F, await self._take(size)

    async def message(self) -> Any:
        opcode, data = await self.receive()
        assert opcode == 1, (opcode, data)
        return json.loads(data)

    async def shake_hands(self) -> None:
        await self.frame(request(0, "initialize", {"clientInfo": {"name": "raw", "version": "1"}}))
        assert "result" in await self.message()


async def raw_socket(daemon: DaemonProcess) -> RawSocket:
    host, _, port = daemon.url.removeprefix("ws://").partition(":")
    stream = await trio.open_tcp_stream(host, int(port))
    key = base64.b64encode(os.urandom(16)).decode()
    await stream.send_all(
        f"GET / HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += bytes(await stream.receive_some(1))
    assert b" 101 " in head.split(b"\r\n")[0], head
    return RawSocket(stream)


async def test_on_a_websocket_what_is_no_message_is_answered_as_such(daemon: DaemonProcess) -> None:
    socket = await raw_socket(daemon)
    async with socket.stream:
        await socket.shake_hands()
        for name, data in [*NO_MESSAGES, ("an empty frame", b""), ("a blank frame", b" \n ")]:
            if "UTF-8" in name:
                continue  # that breaks the framing: below
            await socket.frame(data)
            answer = await socket.message()
            assert (answer["id"], answer["error"]["code"]) == (None, -32700), name
        for _, data in IGNORED:
            await socket.frame(data)
        await socket.frame(b'{"id": 9, "method": "thread/loaded/list", "params": {}}', opcode=2)
        await socket.frame(request(1, "thread/loaded/list", {}))
        assert (await socket.message())["id"] == 1, "a binary frame is no message"


async def test_a_message_in_fragments_is_one_message(daemon: DaemonProcess) -> None:
    socket = await raw_socket(daemon)
    async with socket.stream:
        await socket.shake_hands()
        data = request(1, "thread/loaded/list", {})
        await socket.frame(data[:5], fin=False)
        await socket.frame(data[5:9], opcode=0, fin=False)
        await socket.frame(data[9:], opcode=0)
        assert (await socket.message())["id"] == 1


async def test_text_that_is_no_utf_8_closes_that_connection_with_1007(daemon: DaemonProcess) -> None:
    socket = await raw_socket(daemon)
    async with socket.stream:
        await socket.shake_hands()
        await socket.frame(b'{"id": "\xff\xfe"}')
        opcode, data = await socket.receive()
        assert (opcode, struct.unpack("!H", data[:2])[0]) == (8, 1007)


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_clients_that_leave_in_the_middle_of_a_frame_take_nobody_along(
    daemon: DaemonProcess, how: str
) -> None:
    halves = [
        b"\x81", b"\x81\xfe", b"\x81\xff\x00\x00", b"\x81\x85" + bytes(4) + b"he",
        b"\x01\x82" + bytes(4) + b"he",
    ]  # fmt: skip
    for half in halves:
        socket = await raw_socket(daemon)
        await socket.shake_hands()
        await socket.frame(request(1, "thread/start", {}))
        await socket.message()
        await socket.stream.send_all(half)
        if how == "reset":
            linger = struct.pack("ii", 1, 0)
            socket.stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, linger)
        await socket.stream.aclose()
        await daemon.client.call("thread/loaded/list", {})


async def test_a_frame_that_declares_more_than_the_limit_ends_that_connection(daemon: DaemonProcess) -> None:
    socket = await raw_socket(daemon)
    async with socket.stream:
        await socket.shake_hands()
        await socket.stream.send_all(b"\x81\xff" + struct.pack("!Q", 10**15) + bytes(4))
        try:
            opcode, _ = await socket.receive()
            assert opcode == 8
        except (EOFError, trio.BrokenResourceError):
            pass


async def test_garbage_in_the_place_of_http_is_refused(daemon: DaemonProcess) -> None:
    host, _, port = daemon.url.removeprefix("ws://").partition(":")
    for garbage in (
        b"\0" * 100,
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00" + b"x" * 50 + b"\r\n\r\n",
    ):
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            await stream.send_all(garbage)
            await stream.send_eof()
            try:
                while await stream.receive_some(4096):
                    pass
            except trio.BrokenResourceError:
                pass


async def test_a_client_that_never_reads_holds_up_neither_the_turn_nor_the_others(tmp_path: Path) -> None:
    async with open_daemon(
        tmp_path, config="[spoold]\noutbox_bytes = 4194304\n", check_messages=False
    ) as daemon:
        client = daemon.client
        thread_id = (await client.call("thread/start", {}))["thread"]["id"]
        deaf = await raw_socket(daemon)
        async with deaf.stream:
            await deaf.shake_hands()
            await deaf.frame(request(1, "thread/resume", {"threadId": thread_id}))
            for _ in range(3):
                turn = await client.run_turn(thread_id, "burst 2000 4000")
                assert (turn["status"], len(turn["items"][0]["text"])) == ("completed", 8_000_000)
            text = "".join(
                each["params"]["delta"] for each in client.seen
                if each["method"] == "item/agentMessage/delta"
            )  # fmt: skip
            assert len(text) == 24_000_000, "who reads gets all of it"
            # What was sent before the end is still there to be read; then comes the end.
            with pytest.raises((EOFError, trio.BrokenResourceError)):
                await drain(deaf)
        await works(daemon, client)
        assert "it does not read" in daemon.stderr


async def drain(socket: RawSocket) -> None:
    """Read to the end; raises it."""
    while True:
        opcode, data = await socket.receive()
        if opcode == 8:
            assert struct.unpack("!H", data[:2])[0] == 4008
            raise EOFError


async def test_a_flood_of_requests_gets_an_answer_to_each(daemon: DaemonProcess) -> None:
    socket = await raw_socket(daemon)
    async with socket.stream:
        await socket.shake_hands()
        await socket.frame(request("start", "thread/start", {}))
        thread_id = (await socket.message())["result"]["thread"]["id"]
        answers: dict[int, Any] = {}
        count = 3000

        async def send() -> None:
            for number in range(count):
                await socket.frame(request(number, "thread/read", {"threadId": thread_id}))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            while len(answers) < count:
                message = await socket.message()
                if "method" not in message:
                    assert message["id"] not in answers, "answered twice"
                    answers[message["id"]] = message
        refused = [each["error"] for each in answers.values() if "error" in each]
        assert all(each["code"] == -32001 for each in refused), refused[:1]
        assert len(refused) < count


async def test_input_over_the_limit_is_refused_with_its_size(daemon: DaemonProcess) -> None:
    client = daemon.client
    thread_id = (await client.call("thread/start", {}))["thread"]["id"]
    socket = await raw_socket(daemon)
    async with socket.stream:
        await socket.shake_hands()
        params = {"threadId": thread_id, "input": user_text("x" * (MIB + 1))}
        await socket.frame(request(1, "turn/start", params))
        error = (await socket.message())["error"]
    assert error["code"] == -32602
    assert error["message"] == f"Input exceeds the maximum length of {MIB} characters."
    assert error["data"] == {
        "input_error_code": "input_too_large", "max_chars": MIB, "actual_chars": MIB + 1,
    }  # fmt: skip
