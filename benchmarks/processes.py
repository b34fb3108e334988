"""What a process and its descendants cost, read from ``/proc``."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import trio

_PROC = Path("/proc")
_TICKS = os.sysconf("SC_CLK_TCK")


def _read(path: Path) -> str:
    """A file of /proc; empty where the process is gone."""
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _fields(stat: str) -> list[str]:
    # The name, in parentheses, may hold anything; after it the third field of proc(5) comes first.
    return stat.rpartition(")")[2].split()


def tree(pid: int) -> list[int]:
    """The process and its descendants."""
    children: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdecimal() and (fields := _fields(_read(entry / "stat"))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [pid]
    for member in found:
        found.extend(children.get(member, ()))
    return found


def cpu_seconds(pid: int) -> float:
    """CPU time so far of the process, its live descendants and the children it has waited for."""
    ticks = 0
    for member in tree(pid):
        fields = _fields(_read(_PROC / str(member) / "stat"))
        ticks += sum(map(int, fields[11:15]))
    return ticks / _TICKS


def cpu_seconds_by_thread(pid: int) -> dict[str, float]:
    """CPU time so far of each kernel thread of the process, by ``NAME/ID``."""
    spent = {}
    for entry in (_PROC / str(pid) / "task").iterdir():
        stat = _read(entry / "stat")
        name = stat.partition("(")[2].rpartition(")")[0]
        spent[f"{name}/{entry.name}"] = sum(map(int, _fields(stat)[11:13])) / _TICKS
    return spent


def resident_mib(pid: int) -> float:
    """Resident memory of the process and its descendants: PSS, so that shared pages count once."""
    kib = 0
    for member in tree(pid):
        for line in _read(_PROC / str(member) / "smaps_rollup").splitlines():
            if line.startswith("Pss:"):
                kib += int(line.split()[1])
    return kib / 1024


async def settled_mib(pid: int) -> float:
    """Resident memory once it changes by less than half a percent in half a second; at most 15 s."""
    before = resident_mib(pid)
    for _ in range(30):
        await trio.sleep(0.5)
        now = resident_mib(pid)
        if abs(now - before) <= 0.005 * before:
            return now
        before = now
    return before


async def at_rest(pids: Iterable[int]) -> None:
    """Wait until none of the processes has used CPU time for a tenth of a second; at most 5 s.

    The reference goes on working on a thread after it has answered (its login shell). Nobody's figures are
    to hold the other's work.
    """
    watched = list(pids)
    before = [cpu_seconds(pid) for pid in watched]
    for _ in range(50):
        await trio.sleep(0.1)
        now = [cpu_seconds(pid) for pid in watched]
        if now == before:
            return
        before = now


@dataclass(frozen=True)
class CpuClock:
    """CPU seconds of the whole machine and of this process with the children it has waited for."""

    machine: float
    ours: float

    @classmethod
    def now(cls) -> CpuClock:
        user, nice, system, _idle, _iowait, irq, softirq, *_ = map(
            int, _read(_PROC / "stat").splitlines()[0].split()[1:]
        )
        spent = os.times()
        ours = spent.user + spent.system + spent.children_user + spent.children_system
        return cls((user + nice + system + irq + softirq) / _TICKS, ours)

    def taken_by_others(self, seconds: float, cores: int) -> float:
        """The share of the machine, 0 to 1, that other programs used in the ``seconds`` since this moment."""
        now = CpuClock.now()
        others = (now.machine - self.machine) - (now.ours - self.ours)
        return max(0.0, others / (seconds * cores))
