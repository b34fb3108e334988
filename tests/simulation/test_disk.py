"""The disk of a simulated world: what fails when it was told to, and what a crash leaves of a file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from persistence.appending import sync_path, write_all
from persistence.fault_points import NAMES, reach, watched
from spoold.testing.disk import Crash, Disk
from spoold.testing.runtime import Chance
from spoold.testing.trace import Trace

LUCK = range(40)


class Machine:
    """A disk and a home on it, as the product uses them; after a crash the home is what was left of it."""

    def __init__(self, folder: Path, luck: int = 0) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.home.mkdir(parents=True)
        self.disk = Disk(Chance(luck), Trace({}), lambda power: None)
        self.crashes = 0

    def append(self, name: str, data: bytes, *, flush: bool = False) -> Path:
        path = self.home / name
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_APPEND)
        with watched(self.disk):
            write_all(descriptor, data)
            os.close(descriptor)
            if flush:
                sync_path(path)
        return path

    def crash(self, *, power: bool) -> None:
        self.crashes += 1
        left = self.folder / f"left {self.crashes}"
        self.disk.keep(self.home, left, power=power)
        self.home = left

    def after_a_power_cut(self, name: str) -> bytes:
        self.crash(power=True)
        return (self.home / name).read_bytes()


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machine]:
    """Equal machines, each with luck of its own."""
    return (Machine(tmp_path / str(luck), luck) for luck in LUCK)


async def test_the_end_of_a_file_that_was_not_flushed_is_lost_or_was_never_filled(
    machines: Iterator[Machine],
) -> None:
    seen = set()
    for machine in machines:
        machine.append("a.jsonl", b"x" * 100, flush=True)
        path = machine.append("a.jsonl", b"y" * 100)
        time = path.stat().st_mtime_ns
        left = machine.after_a_power_cut("a.jsonl")
        kept = left.rstrip(b"\0")
        assert kept.startswith(b"x" * 100)
        assert kept == b"x" * 100 + b"y" * (len(kept) - 100)
        assert len(left) in (len(kept), 200)
        seen.add("all" if len(kept) == 200 else "allotted" if len(left) == 200 else "cut off")
        assert (machine.home / "a.jsonl").stat().st_mtime_ns == time
    assert seen == {"allotted", "cut off"} or seen == {"all", "allotted", "cut off"}


async def test_what_is_left_after_a_power_cut_is_on_the_disk(machines: Iterator[Machine]) -> None:
    for machine in machines:
        machine.append("a.jsonl", b"x" * 100)
        left = machine.after_a_power_cut("a.jsonl")
        assert machine.after_a_power_cut("a.jsonl") == left


async def test_what_was_not_flushed_before_a_kill_is_lost_with_the_power_after_it(
    machines: Iterator[Machine],
) -> None:
    lost = 0
    for machine in machines:
        machine.append("a.jsonl", b"x" * 50, flush=True)
        machine.append("a.jsonl", b"y" * 50)
        machine.crash(power=False)
        assert (machine.home / "a.jsonl").read_bytes() == b"x" * 50 + b"y" * 50
        left = machine.after_a_power_cut("a.jsonl")
        assert left.startswith(b"x" * 50)
        lost += left.rstrip(b"\0") != b"x" * 50 + b"y" * 50
    assert lost > 0


async def test_what_is_appended_in_the_place_of_bytes_taken_back_is_not_on_the_disk_as_they_were(
    machines: Iterator[Machine],
) -> None:
    lost = 0
    for machine in machines:
        path = machine.append("a.jsonl", b"x" * 1000, flush=True)
        os.truncate(path, 100)
        machine.append("a.jsonl", b"y" * 500)
        left = machine.after_a_power_cut("a.jsonl")
        assert left.startswith(b"x" * 100)
        lost += left.rstrip(b"\0") != b"x" * 100 + b"y" * 500
    assert lost > 0


def outcomes(disk: Disk, point: str, count: int) -> list[str]:
    """What comes of reaching a point so often."""
    found = []
    for _ in range(count):
        try:
            with watched(disk):
                reach(point)
            found.append("ok")
        except (Crash, Exception) as error:
            found.append(type(error).__name__)
    return found


async def test_what_fails_several_times_does_so_one_after_the_other(tmp_path: Path) -> None:
    disk = Machine(tmp_path).disk
    disk.fail("commit", after=2, times=2)
    failed = ["OperationalError"] * 2
    assert outcomes(disk, "before COMMIT", 6) == ["ok", "ok", *failed, "ok", "ok"]


async def test_each_of_several_faults_at_one_point_counts_every_time(tmp_path: Path) -> None:
    disk = Machine(tmp_path).disk
    disk.fail("commit", after=2)
    disk.crash_at("before COMMIT", after=3)
    disk.fail("commit", after=5)
    disk.crash_at("before COMMIT", after=5)
    expected = ["ok", "ok", "OperationalError", "Crash", "ok", "Crash", "ok"]
    assert outcomes(disk, "before COMMIT", 7) == expected


async def test_a_point_that_there_is_not_is_told_with_those_that_there_are(tmp_path: Path) -> None:
    disk = Machine(tmp_path).disk
    with pytest.raises(ValueError, match="no point 'after the flood'") as told:
        disk.crash_at("after the flood")
    assert all(name in str(told.value) for name in NAMES)
    with pytest.raises(ValueError, match="no such fault: 'fsync'; there are append, half an append, flush"):
        disk.fail("fsync")  # type: ignore[arg-type]
