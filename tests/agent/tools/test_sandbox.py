"""The sandbox, with the real bubblewrap."""

# ruff: noqa: ASYNC220, ASYNC240

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from agent.tools.sandbox import SandboxProbe, sandboxed_argv, wants_sandbox
from protocol.settings import DangerFullAccess, ExternalSandbox, ReadOnly, WorkspaceWrite

ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin"}


@pytest.fixture
async def works() -> None:
    status = await SandboxProbe().run()
    if not status.works:
        pytest.skip(f"bubblewrap does not work on this machine: {status.problem}")


def run(
    script: str, policy: ReadOnly | WorkspaceWrite, cwd: Path, **env: str
) -> subprocess.CompletedProcess[str]:
    environment = {**ENV, **env}
    argv = sandboxed_argv(["/bin/sh", "-c", script], policy=policy, cwd=str(cwd), env=environment)
    return subprocess.run(
        argv, env=environment, cwd=cwd, capture_output=True, text=True, timeout=30, check=False
    )


def closed(**changes: Any) -> WorkspaceWrite:
    """Only the working directory is writable."""
    return WorkspaceWrite(exclude_slash_tmp=True, exclude_tmpdir_env_var=True, **changes)


@pytest.mark.usefixtures("works")
async def test_read_only_writes_nowhere_and_reads_everywhere(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("readable")
    for target in (tmp_path / "b", "/tmp/spoold-b", "/usr/b", "/root/b"):
        assert run(f"touch {target}", ReadOnly(), tmp_path).returncode != 0, target
    assert run("cat a", ReadOnly(), tmp_path).stdout == "readable"
    assert run("echo x > /dev/null; pwd", ReadOnly(), tmp_path).stdout == f"{tmp_path}\n"


@pytest.mark.usefixtures("works")
async def test_workspace_write_writes_to_its_roots_only(tmp_path: Path) -> None:
    cwd, other, outside = tmp_path / "cwd", tmp_path / "other", tmp_path / "outside"
    for folder in (cwd, other, outside):
        folder.mkdir()
    policy = closed(writable_roots=[str(other), str(tmp_path / "does not exist")])
    done = run(f"touch in {other}/in; touch {outside}/in; touch /usr/in", policy, cwd)
    assert done.returncode != 0
    assert (cwd / "in").exists()
    assert (other / "in").exists()
    assert not (outside / "in").exists()
    assert not (tmp_path / "does not exist").exists()


@pytest.mark.usefixtures("works")
async def test_slash_tmp_is_shared_or_private(tmp_path: Path) -> None:
    mark = Path("/tmp") / f"spoold-{tmp_path.name}"
    try:
        assert run(f"touch {mark}", WorkspaceWrite(), tmp_path).returncode == 0
        assert mark.exists()
        private = run(f"test ! -e {mark} && touch {mark}.private", closed(), tmp_path)
        assert private.returncode == 0, private.stderr
        assert not mark.with_suffix(".private").exists()
    finally:
        mark.unlink(missing_ok=True)


@pytest.mark.usefixtures("works")
async def test_tmpdir_is_writable_unless_excluded(tmp_path: Path) -> None:
    cwd, scratch = tmp_path / "cwd", tmp_path / "scratch"
    cwd.mkdir()
    scratch.mkdir()
    allowed = WorkspaceWrite(exclude_slash_tmp=True)
    assert run('touch "$TMPDIR/in"', allowed, cwd, TMPDIR=str(scratch)).returncode == 0
    assert (scratch / "in").exists()
    done = run(f'echo "[$TMPDIR]"; touch {scratch}/out', closed(), cwd, TMPDIR=str(scratch))
    assert done.stdout == "[]\n"
    assert not (scratch / "out").exists()


@pytest.mark.usefixtures("works")
async def test_a_root_behind_a_symbolic_link_is_writable(tmp_path: Path) -> None:
    cwd, real, link = tmp_path / "cwd", tmp_path / "real", tmp_path / "link"
    cwd.mkdir()
    real.mkdir()
    link.symlink_to(real)
    assert run(f"touch {real}/in", closed(writable_roots=[str(link)]), cwd).returncode == 0
    assert (real / "in").exists()


@pytest.mark.usefixtures("works")
async def test_the_network_is_there_only_when_allowed(tmp_path: Path) -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    connect = f"exec 3<>/dev/tcp/127.0.0.1/{port} && echo reached"
    script = f"/bin/bash -c '{connect}'"
    try:
        for policy in (ReadOnly(), WorkspaceWrite()):
            assert "reached" not in run(script, policy, tmp_path).stdout
            open_policy = policy.model_copy(update={"network_access": True})
            assert run(script, open_policy, tmp_path).stdout == "reached\n"
    finally:
        for listener in listeners:
            await listener.aclose()


@pytest.mark.usefixtures("works")
async def test_other_processes_are_neither_seen_nor_reached(tmp_path: Path) -> None:
    sleeper = subprocess.Popen(["sleep", "1000"])
    try:
        assert run(f"kill -9 {sleeper.pid}", ReadOnly(), tmp_path).returncode != 0
        seen = run("ls /proc", ReadOnly(), tmp_path).stdout.split()
        assert sum(name.isdigit() for name in seen) < 8
        assert sleeper.poll() is None
    finally:
        sleeper.kill()
        sleeper.wait()


@pytest.mark.usefixtures("works")
async def test_the_sandbox_cannot_be_undone_from_inside(tmp_path: Path) -> None:
    cwd = tmp_path / "cwd"
    cwd.mkdir()
    root = Path(f"/spoold-{tmp_path.name}-{tmp_path.parent.name}")
    remount = "mount -o remount,rw,bind /; mount -o remount,rw /"
    script = f"{remount}; mount --bind {tmp_path} {cwd}; touch {tmp_path}/in {root}"
    run(script, closed(), cwd)
    assert not (tmp_path / "in").exists()
    try:
        assert not root.exists()
    finally:
        root.unlink(missing_ok=True)
    assert "0000000000000000" in run("grep CapEff /proc/self/status", ReadOnly(), cwd).stdout
    nested = f"unshare -Urm sh -c 'mount -o remount,rw,bind /; touch {tmp_path}/in'"
    run(nested, closed(), cwd)
    assert not (tmp_path / "in").exists()


def test_only_the_two_sandboxed_policies_want_a_sandbox() -> None:
    wanted = [
        wants_sandbox(policy)
        for policy in (ReadOnly(), WorkspaceWrite(), DangerFullAccess(), ExternalSandbox())
    ]
    assert wanted == [True, True, False, False]


def fake_bwrap(folder: Path, script: str) -> str:
    program = folder / "bwrap"
    program.write_text(f"#!/bin/sh\necho run >> {folder}/runs\n{script}\n")
    program.chmod(0o755)
    return str(program)


async def test_the_probe_says_why_and_what_to_do(tmp_path: Path) -> None:
    program = fake_bwrap(
        tmp_path, "echo 'bwrap: loopback: Failed RTM_NEWADDR: Operation not permitted' >&2; exit 1"
    )
    status = await SandboxProbe(program).run()
    assert not status.works
    assert status.problem.startswith("bwrap: loopback: Failed RTM_NEWADDR: Operation not permitted (")
    assert "user namespaces" in status.problem


async def test_the_probe_names_the_package_when_there_is_no_bubblewrap() -> None:
    status = await SandboxProbe("no-such-bwrap").run()
    assert not status.works
    assert "apt install bubblewrap" in status.problem


async def test_many_callers_share_one_probe(tmp_path: Path) -> None:
    probe = SandboxProbe(fake_bwrap(tmp_path, "exit 0"))
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(probe.run)
    assert (await probe.run()).works
    assert (tmp_path / "runs").read_text() == "run\n"


async def test_a_cancelled_probe_is_not_an_answer(tmp_path: Path) -> None:
    probe = SandboxProbe(fake_bwrap(tmp_path, "exit 0"))
    with trio.CancelScope() as scope:
        scope.cancel()
        await probe.run()
    assert (await probe.run()).works
