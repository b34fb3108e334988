from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from transport.framing import LineFramer, TooLong

LINES = st.lists(st.binary(max_size=40).map(lambda line: line.replace(b"\n", b"")), max_size=12)


def feed_in_pieces(framer: LineFramer, data: bytes, cuts: list[int]) -> list[bytes | TooLong]:
    out: list[bytes | TooLong] = []
    places = sorted({cut % (len(data) + 1) for cut in cuts})
    for start, end in zip([0, *places], [*places, len(data)], strict=True):
        out += framer.feed(data[start:end])
    return out + framer.finish()


def expected(lines: list[bytes], limit: int) -> list[bytes | TooLong]:
    out: list[bytes | TooLong] = []
    for line in lines:
        if len(line) > limit:
            out.append(TooLong(limit))
            continue
        text = line[:-1] if line.endswith(b"\r") else line
        if text and not text.isspace():
            out.append(text)
    return out


@given(LINES, st.lists(st.integers(0, 10_000), max_size=20), st.booleans(), st.integers(1, 60))
def test_the_messages_do_not_depend_on_how_the_bytes_are_cut(
    lines: list[bytes], cuts: list[int], newline_at_end: bool, limit: int
) -> None:
    data = b"\n".join(lines) + (b"\n" if newline_at_end else b"")
    assert feed_in_pieces(LineFramer(limit), data, cuts) == expected(lines, limit)


def test_blank_lines_are_nothing_and_crlf_is_a_line_end() -> None:
    assert LineFramer().feed(b"\n\r\n  \t\n{}\r\n") == [b"{}"]


def test_a_line_at_the_limit_is_a_message_and_one_byte_more_is_not() -> None:
    framer = LineFramer(10)
    assert framer.feed(b"a" * 10 + b"\n" + b"b" * 11 + b"\n" + b"c\n") == [b"a" * 10, TooLong(10), b"c"]


def test_a_line_over_the_limit_is_told_once_and_never_held() -> None:
    framer = LineFramer(1 << 20)
    told = []
    for _ in range(1000):
        told += framer.feed(b"x" * 65536)
        assert len(framer._partial) <= 1 << 20
    assert told == [TooLong(1 << 20)]
    assert framer.feed(b"tail\nnext\n") == [b"next"]


def test_the_cost_is_linear_however_small_the_pieces_are() -> None:
    def cost(size: int) -> float:
        framer = LineFramer()
        started = time.perf_counter()
        for _ in range(size):
            framer.feed(b"xxxxxxxxxxxxxxxx")
        assert len(framer.feed(b"\n")) == 1
        return time.perf_counter() - started

    cost(1000)
    small, large = cost(20_000), cost(200_000)
    assert large < 60 * small, f"ten times the pieces took {large / small:.0f} times as long"
