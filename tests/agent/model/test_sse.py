"""Server-sent events: the same events however the bytes are cut, and bounds on what is kept."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model.sse import ServerEvent, SSEParser


def parse(*chunks: bytes, limit: int = 1 << 20) -> list[ServerEvent]:
    parser = SSEParser(limit)
    events = [event for chunk in chunks for event in parser.feed(chunk)]
    return [*events, *parser.finish()]


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: a\n\n", [(b"", b"a")]),
        (b"event: x\ndata: a\n\n", [(b"x", b"a")]),
        (b"data: a\nevent: x\n\n", [(b"x", b"a")]),
        (b"data:a\n\n", [(b"", b"a")]),
        (b"data:  a\n\n", [(b"", b" a")]),
        (b"data: a\ndata: b\n\n", [(b"", b"a\nb")]),
        (b"data\n\n", [(b"", b"")]),
        (b"data\ndata\n\n", [(b"", b"\n")]),
        (b": comment\n\ndata: a\n\n", [(b"", b"a")]),
        (b": comment\ndata: a\n: more\n\n", [(b"", b"a")]),
        (b"event: x\n\n", []),
        (b"id: 1\nretry: 5\ndata: a\nunknown: z\n\n", [(b"", b"a")]),
        (b"\n\n\ndata: a\n\n\n\ndata: b\n\n", [(b"", b"a"), (b"", b"b")]),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", [(b"", b"a"), (b"", b"b")]),
        (b"data: a\r\rdata: b\r\r", [(b"", b"a"), (b"", b"b")]),
        (b"data: a\r\ndata: b\r\r\n", [(b"", b"a\nb")]),
        (b"\xef\xbb\xbfdata: a\n\n", [(b"", b"a")]),
        (b"data: a\n\ndata: b", [(b"", b"a"), (b"", b"b")]),
        (b"", []),
    ],
)
def test_a_stream_means_these_events(stream: bytes, events: list[ServerEvent]) -> None:
    assert parse(stream) == events
    assert parse(*(bytes([byte]) for byte in stream)) == events


LINES = st.sampled_from(
    [
        b"data: {}",
        b"data:",
        b"data: \xc3\xa9\xf0\x9f\x98\x80",
        b"event: e",
        b": c",
        b"",
        b"",
        b"id: 3",
        b"\xef\xbb\xbf",
        b"\xff",
    ]
)
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])
STREAMS = st.lists(st.tuples(LINES, ENDS), max_size=20).map(
    lambda parts: b"".join(line + end for line, end in parts)
)


@given(stream=STREAMS | st.binary(max_size=60), cuts=st.lists(st.integers(0, 300), max_size=8))
def test_any_cutting_into_chunks_gives_the_same_events(stream: bytes, cuts: list[int]) -> None:
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    chunks = [stream[start:end] for start, end in pairwise(edges)]
    assert parse(*chunks) == parse(stream)


@given(
    data=st.text(alphabet=st.characters(exclude_characters="\r\n", exclude_categories=["Cs"])),
    name=st.text("abc.", min_size=1),
)
def test_what_is_written_is_read(data: str, name: str) -> None:
    stream = f"event: {name}\ndata: {data}\n\n".encode()
    assert parse(stream) == [(name.encode(), data.encode())]


def test_an_endless_line_is_dropped_at_the_limit() -> None:
    parser = SSEParser(1000)
    fed = 0
    while not parser.overflowed:
        assert parser.feed(b"x" * 100) == []
        fed += 100
    assert fed <= 1200
    assert parser.feed(b"\n\ndata: a\n\n") == []
    assert parser.finish() == []


def test_events_before_one_that_is_too_large_are_kept() -> None:
    parser = SSEParser(100)
    assert parser.feed(b"data: a\n\ndata: " + b"x" * 200 + b"\n\ndata: b\n\n") == [(b"", b"a")]
    assert parser.overflowed


def test_an_event_of_exactly_the_limit_is_taken() -> None:
    event = b"data: " + b"x" * 94
    assert parse(event + b"\n\n", limit=100) == [(b"", b"x" * 94)]
    assert parse(*(bytes([byte]) for byte in event + b"\n\n"), limit=100) == [(b"", b"x" * 94)]
