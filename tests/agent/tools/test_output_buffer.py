"""Output in bounded memory."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.tools.output_buffer import OutputBuffer, shortened, token_count


@given(st.lists(st.binary(max_size=30)), st.integers(2, 40))
def test_head_and_tail_stay_and_the_gap_is_counted(chunks: list[bytes], limit: int) -> None:
    buffer = OutputBuffer(limit)
    for chunk in chunks:
        buffer.write(chunk)
    everything = b"".join(chunks)
    half = limit // 2
    assert buffer.total == len(everything)
    if len(everything) <= 2 * half:
        assert buffer.text() == everything.decode("utf-8", "replace")
    else:
        gap = f"\n[... {len(everything) - 2 * half} bytes left out ...]\n".encode()
        expected = everything[:half] + gap + everything[-half:]
        assert buffer.text() == expected.decode("utf-8", "replace")


def test_memory_stays_bounded_however_much_is_written() -> None:
    buffer = OutputBuffer(1024)
    for _ in range(10_000):
        buffer.write(b"x" * 1000)
        assert len(buffer._head) + len(buffer._tail) <= 512 + 1024
    assert buffer.total == 10_000_000


def test_tokens_are_counted_roughly() -> None:
    assert [token_count(size) for size in (0, 3, 4, 5)] == [0, 1, 1, 2]


def test_a_long_text_loses_its_middle() -> None:
    text = "a" * 4000 + "b" * 4000
    short = shortened(text, 100)
    assert short == "a" * 200 + "\u20261900 tokens truncated\u2026" + "b" * 200
    assert shortened("ä" * 10, 5) == "ä" * 10
