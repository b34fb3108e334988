"""The program as a process: exit codes, the line that explains them, what is imported before it listens."""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from spoold.version import __version__

ROOT = Path(__file__).parents[2]
LIMIT = 60
"""Seconds after which a hanging program fails its test; far above what any takes."""


def environment(home: Path, **more: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL") if name in os.environ}
    return {**kept, "HOME": str(home), "PYTHONPATH": str(ROOT), **more}


def spoold(home: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the program with nothing on stdin until it ends."""
    return subprocess.run(
        [sys.executable, "-m", "spoold", *arguments],
        env=environment(home, **variables),
        cwd=home,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )


def refused(result: subprocess.CompletedProcess[str], code: int, pattern: str) -> None:
    assert (result.returncode, result.stdout) == (code, "")
    assert re.fullmatch(rf"Error: {pattern}\n", result.stderr), result.stderr


def test_the_version_is_one_line_on_stdout(tmp_path: Path) -> None:
    result = spoold(tmp_path, "--version")
    assert (result.returncode, result.stdout, result.stderr) == (0, f"spoold {__version__}\n", "")


def test_help_names_the_commands_and_touches_no_home(tmp_path: Path) -> None:
    result = spoold(tmp_path, "--help")
    assert result.returncode == 0
    assert {"serve", "app-server", "queue", "schema"} <= set(result.stdout.split())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "pattern"),
    [
        ([], r"no command; .*"),
        (["--bogus"], r"No such option.*--bogus.*"),
        (["bogus"], r"No such command 'bogus'\."),
        (["serve", "--bogus"], r"No such option.*--bogus.*"),
        (["serve", "--listen"], r"Option '--listen' requires an argument\."),
        (["serve", "surplus"], r"Got unexpected extra argument \(surplus\)"),
        (["serve", "--listen", "http://x"], r"unsupported --listen URL `http://x`; expected .*"),
        (["serve", "--listen", ""], r"unsupported --listen URL ``; expected .*"),
        (["serve", "--listen", "ws://localhost:1"], r".*`ws://localhost:1`; expected.*ws://IP:PORT.*"),
        (["serve", "--listen", "ws://127.0.0.1:65536"], r".*expected.*ws://IP:PORT.*"),
        (["app-server", "--ws-auth", "password"], r"Invalid value for '--ws-auth': .*"),
        (["app-server", "--ws-max-clock-skew-seconds", "x"], r"Invalid value for '--ws-max-clock.*"),
    ],
)
def test_a_wrong_command_line_exits_2_with_one_line(
    tmp_path: Path, arguments: list[str], pattern: str
) -> None:
    refused(spoold(tmp_path, *arguments), 2, pattern)
    assert list(tmp_path.iterdir()) == [], "a wrong command line must not make a home"


def test_a_port_in_use_exits_1_with_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = spoold(tmp_path, "serve", "--listen", f"ws://127.0.0.1:{port}")
    refused(result, 1, rf".*127\.0\.0\.1:{port}.*in use.*")


def test_a_port_that_anyone_can_reach_needs_authentication(tmp_path: Path) -> None:
    refused(spoold(tmp_path, "serve", "--listen", "ws://0.0.0.0:0"), 1, r".*0\.0\.0\.0.*--ws-auth.*")


@pytest.mark.parametrize(
    ("code", "flags", "pattern"),
    [
        (2, ["--ws-auth", "capability-token"], r".*--ws-token-file.*"),
        (2, ["--ws-auth", "signed-bearer-token"], r".*--ws-shared-secret-file.*"),
        (2, ["--ws-token-sha256", "00"], r"--ws-token-sha256 needs --ws-auth .*"),
        (1, ["--ws-auth", "capability-token", "--ws-token-file", "relative"], r".*absolute.*"),
        (1, ["--ws-auth", "signed-bearer-token", "--ws-shared-secret-file", "/no/such"], r".*/no/such.*"),
    ],
)
def test_authentication_that_cannot_work_is_refused_and_never_left_out(
    tmp_path: Path, code: int, flags: list[str], pattern: str
) -> None:
    refused(spoold(tmp_path, "app-server", "--listen", "ws://127.0.0.1:0", *flags), code, pattern)


@pytest.mark.parametrize(
    ("content", "pattern"),
    [
        (b'model = "x', r"end of file: .*"),
        (b"a = 1\n= 2", r".*line 2, column 1.*"),
        (b"a = '\xff'", r".*invalid UTF-8.*"),
        (b"model = 5", r".*integer `5`, expected a string in `model`"),
    ],
)
def test_a_config_file_with_an_error_exits_1_and_names_the_file_and_the_reason(
    tmp_path: Path, content: bytes, pattern: str
) -> None:
    (tmp_path / "config.toml").write_bytes(content)
    result = spoold(tmp_path, "serve", SPOOLD_HOME=str(tmp_path))
    refused(result, 1, rf"{re.escape(str(tmp_path / 'config.toml'))}: {pattern}")


@pytest.mark.parametrize(
    ("flags", "pattern"),
    [
        (["-c", "model"], r"Invalid override \(missing '='\): model"),
        (["-c", "sandbox_mode=zz"], r"unknown variant `zz`, expected one of .* in `sandbox_mode`"),
        (["-c", "model_provider=nope"], r"Model provider `nope` not found"),
        (["--strict-config", "-c", "foo=1"], r"unknown configuration key in `foo`"),
    ],
)
def test_a_setting_that_cannot_be_exits_1_wherever_it_stands(
    tmp_path: Path, flags: list[str], pattern: str
) -> None:
    refused(spoold(tmp_path, "app-server", *flags), 1, pattern)
    if flags[0] == "-c":
        refused(spoold(tmp_path, *flags, "app-server"), 1, pattern)


def test_a_file_in_the_place_of_the_home_exits_1_with_one_line(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    refused(
        spoold(tmp_path, "serve", "--home", str(file)), 1, rf"home {re.escape(str(file))} is not a folder"
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_home_that_cannot_be_written_exits_1_with_one_line(tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    refused(spoold(tmp_path, "serve", "--home", str(locked)), 1, r"home .* cannot be written.*")


def test_the_end_of_stdin_ends_the_daemon_with_0_and_leaves_a_private_home(tmp_path: Path) -> None:
    home = tmp_path / "home"
    result = spoold(tmp_path, "serve", SPOOLD_HOME=str(home))
    assert (result.returncode, result.stdout, result.stderr) == (0, "", f"spoold owns {home}\n")
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    for path in home.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_flags_of_the_reference_that_select_nothing_here_are_accepted_with_a_warning(tmp_path: Path) -> None:
    result = spoold(
        tmp_path, "-c", "model=m", "app-server", "--analytics-default-enabled", "--session-source", "vscode",
        "--enable", "a", "--disable", "b", "--stdio", "--listen", "stdio://",
    )  # fmt: skip
    assert (result.returncode, result.stdout) == (0, "")
    warnings = [line for line in result.stderr.splitlines() if line.startswith("Warning")]
    assert [line.split()[:2] for line in warnings] == [
        ["Warning:", "--analytics-default-enabled"],
        ["Warning:", "--session-source"],
    ]


def test_an_unknown_key_is_a_warning_on_stderr_and_the_daemon_starts(tmp_path: Path) -> None:
    result = spoold(tmp_path, "serve", "-c", "foo=1")
    assert (result.returncode, result.stdout) == (0, "")
    assert "unknown configuration key `foo`" in result.stderr


def test_the_schema_is_written_where_it_is_asked_for(tmp_path: Path) -> None:
    result = spoold(tmp_path, "app-server", "generate-json-schema", "--out", "out", "--experimental")
    assert (result.returncode, result.stderr) == (0, "")
    assert (tmp_path / result.stdout.strip()).is_file()
    (tmp_path / "file").write_text("")
    refused(spoold(tmp_path, "schema", "--out", "file"), 1, r"file cannot be written: .*")


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """A daemon on a websocket, and what it wrote to stderr until it listened."""
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "spoold", "serve", "--listen", "ws://127.0.0.1:0"],
        env=environment(tmp_path),
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if "listens on" in line:
                break
        yield process, lines
        process.kill()


def test_nothing_heavy_is_imported_before_the_daemon_listens(
    listening: tuple[subprocess.Popen[str], list[str]],
) -> None:
    _, lines = listening
    assert "listens on ws://127.0.0.1:" in lines[-1]
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in lines if "import time:" in line}
    assert "click" in imported, "the list of imports was not read"
    assert imported & {"rich", "structlog", "sqlite_utils", "httpx2", "jwt", "mcp"} == set()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_an_idle_websocket_daemon_with_0(
    listening: tuple[subprocess.Popen[str], list[str]], number: signal.Signals
) -> None:
    process, _ = listening
    process.send_signal(number)
    assert process.stderr is not None
    rest = process.stderr.read()
    assert process.wait(LIMIT) == 0, rest


def test_the_command_line_itself_imports_only_click(tmp_path: Path) -> None:
    result = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, spoold.cli; print(*{name.partition('.')[0] for name in sys.modules})",
        ],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=True,
    )
    third_party = set(result.stdout.split()) - set(sys.stdlib_module_names) - {"__main__"}
    assert {name for name in third_party if not name.startswith(("_", "__editable__"))} <= {"click", "spoold"}
