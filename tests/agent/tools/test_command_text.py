"""Commands as text."""

from __future__ import annotations

import shlex
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.tools.command_text import plain_argv
from protocol.shell_text import join_command


@pytest.mark.parametrize(
    ("argv", "shown"),
    [
        (["/bin/bash", "-lc", "echo hi"], "/bin/bash -lc 'echo hi'"),
        (["/bin/bash", "-lc", "python3 -c 'print(42)'"], "/bin/bash -lc \"python3 -c 'print(42)'\""),
        (["/bin/bash", "-lc", "ls"], "/bin/bash -lc ls"),
        (["a", ""], "a ''"),
        (["a=b"], "'a=b'"),
        (['it\'s "quoted"'], '"it\'s \\"quoted\\""'),
        (["it's $HOME"], "\"it's \"'$HOME'"),
        (["a\nb"], "'a\nb'"),
    ],
)
def test_an_argv_is_shown_the_way_clients_know(argv: list[str], shown: str) -> None:
    assert join_command(argv) == shown


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), min_size=1))
def test_what_is_shown_can_be_read_back(argv: list[str]) -> None:
    assert shlex.split(join_command(argv)) == argv


@given(st.text(st.sampled_from("ab$`\"'\\!^*?; \n#~="), max_size=12))
def test_bash_reads_back_what_is_shown(word: str) -> None:
    text = f"printf '%s.' {join_command([word])}"
    done = subprocess.run(["/bin/bash", "-c", text], capture_output=True, check=True)
    assert done.stdout.decode() == f"{word}."


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ls", ["ls"]),
        ("python3 -c 'print(42)'", ["python3", "-c", "print(42)"]),
        ('git  commit -m "a; b"', ["git", "commit", "-m", "a; b"]),
        ("echo ''", ["echo", ""]),
        ("echo a=b", ["echo", "a=b"]),
        ("echo a'b'\"c\"", ["echo", "abc"]),
    ],
)
def test_a_plain_command_is_taken_apart(text: str, words: list[str]) -> None:
    assert plain_argv(text) == words


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  ",
        "a; b",
        "a | b",
        "a & b",
        "a > b",
        "a < b",
        "a $HOME",
        "a `b`",
        "a $(b)",
        'a "$(b)"',
        'a "`b`"',
        "a\nb",
        "(a)",
        "A=1 b",
        "a *",
        "~/a",
        "a {b,c}",
        "a 'b",
        'a "b',
        "a \\; b",
        "a # b",
        "! a",
    ],
)
def test_what_a_shell_would_do_more_with_is_not_plain(text: str) -> None:
    assert plain_argv(text) is None


@given(st.text(st.sampled_from("ab '\"=;|$\\\n`-"), max_size=15))
def test_bash_gives_a_plain_command_exactly_these_words(text: str) -> None:
    words = plain_argv(text)
    if words is not None:
        script = f'show() {{ printf "%s\\0" "$@"; }}; show {text}'
        done = subprocess.run(["/bin/bash", "-c", script], capture_output=True, check=True)
        assert done.stdout.decode() == "".join(f"{word}\0" for word in words)
