"""The Linux sandbox: bubblewrap.

What a sandboxed command sees: the whole file system, read-only; its writable roots; a private /dev and /proc;
no other process of the machine; no network unless the policy allows it. It holds no capabilities, also where
the daemon runs as root: root with CAP_SYS_ADMIN could simply mount the root writable again.

``readOnly`` has no writable root at all, /tmp included. ``workspaceWrite`` writes to its roots, the working
directory, /tmp and $TMPDIR; with ``excludeSlashTmp`` the command gets an empty /tmp of its own instead, with
``excludeTmpdirEnvVar`` $TMPDIR is not writable and is taken out of the environment.

A writable root that does not exist is left out rather than made.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import trio

from protocol.settings import DangerFullAccess, ExternalSandbox, ReadOnly, WorkspaceWrite

SandboxSettings = DangerFullAccess | ReadOnly | WorkspaceWrite | ExternalSandbox

_PROBE_LIMIT = 10.0
"""Seconds. A bubblewrap that takes longer does not work."""
_INSTALL = "Install it with: apt install bubblewrap"
_USER_NAMESPACES = (
    "bubblewrap is installed but this system does not let it work; allow unprivileged user namespaces for it "
    "(on Ubuntu 24.04 and later an AppArmor profile for bwrap, in a container the seccomp and capability "
    "settings that bubblewrap needs)"
)


def wants_sandbox(policy: SandboxSettings) -> bool:
    """Whether commands under ``policy`` run inside bubblewrap."""
    return isinstance(policy, ReadOnly | WorkspaceWrite)


def sandboxed_argv(
    argv: Sequence[str], *, policy: ReadOnly | WorkspaceWrite, cwd: str, env: Mapping[str, str]
) -> list[str]:
    """``argv`` inside bubblewrap. Looks at the file system (symbolic links of roots): call it in a thread.

    Args:
        argv: the program and its arguments.
        policy: what it may do.
        cwd: its working directory, absolute; stays readable even where it is not writable.
        env: the environment it will have; TMPDIR matters.
    """
    flags = ["bwrap"]
    roots = _writable_roots(policy, cwd, env) if isinstance(policy, WorkspaceWrite) else []
    flags += ["--bind" if "/" in roots else "--ro-bind", "/", "/"]
    if isinstance(policy, WorkspaceWrite):
        if policy.exclude_slash_tmp:
            # Roots below the real /tmp, such as the working directory, are bound into the empty one.
            flags += ["--tmpfs", "/tmp"]  # noqa: S108
        if policy.exclude_tmpdir_env_var:
            flags += ["--unsetenv", "TMPDIR"]
    for root in roots:
        if root != "/":
            flags += ["--bind-try", root, root]
    flags += ["--dev", "/dev", "--proc", "/proc", "--unshare-pid", "--unshare-ipc"]
    if not policy.network_access:
        flags.append("--unshare-net")
    flags += ["--cap-drop", "ALL", "--die-with-parent", "--new-session", "--chdir", cwd, "--", *argv]
    return flags


def _writable_roots(policy: WorkspaceWrite, cwd: str, env: Mapping[str, str]) -> list[str]:
    """Existing writable folders without symbolic links, parents before children."""
    roots = [cwd, *(os.path.join(cwd, root) for root in policy.writable_roots)]  # noqa: PTH118
    if not policy.exclude_slash_tmp:
        roots.append("/tmp")  # noqa: S108
    tmpdir = env.get("TMPDIR")
    if tmpdir and tmpdir.startswith("/") and not policy.exclude_tmpdir_env_var:
        roots.append(tmpdir)
    return sorted({os.path.realpath(root) for root in roots})


@dataclass(frozen=True, slots=True)
class SandboxStatus:
    """Whether bubblewrap works here; ``problem`` says why not and what to do, in one paragraph."""

    works: bool
    problem: str = ""


class SandboxProbe:
    """Finds out, once per daemon, whether bubblewrap works: by running it."""

    def __init__(self, program: str = "bwrap") -> None:
        self._program = program
        self._status: SandboxStatus | None = None
        self._lock = trio.Lock()

    async def run(self) -> SandboxStatus:
        """The status; simultaneous first callers share one probe. Cancelled: the next caller probes."""
        if self._status is None:
            async with self._lock:
                if self._status is None:
                    self._status = await self._probe()
        return self._status

    async def _probe(self) -> SandboxStatus:
        if shutil.which(self._program) is None:
            return SandboxStatus(False, f"the sandbox needs bubblewrap (no {self._program} here). {_INSTALL}")
        argv = sandboxed_argv(["/bin/sh", "-c", ":"], policy=ReadOnly(), cwd="/", env={})
        argv[0] = self._program
        try:
            with trio.fail_after(_PROBE_LIMIT):
                done = await trio.run_process(
                    argv, stdin=b"", capture_stdout=True, capture_stderr=True, check=False
                )
        except trio.TooSlowError:
            return SandboxStatus(False, f"{self._program} did not end within {_PROBE_LIMIT:.0f} seconds")
        except OSError as error:
            return SandboxStatus(False, f"{self._program} cannot be started: {error}. {_INSTALL}")
        if done.returncode == 0:
            return SandboxStatus(True)
        said = (done.stderr or b"").decode("utf-8", "replace").strip()
        return SandboxStatus(False, f"{said or f'exit code {done.returncode}'} ({_USER_NAMESPACES})")
