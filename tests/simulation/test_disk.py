"""The disk of a simulated world: what fails when it was told to, and what a crash leaves of a file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from persistence.appending import made, move, remove, sync_path, write_all
from persistence.fault_points import NAMES, reach, watched
from persistence.home import make_folders
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
        self.disk = Disk(Chance(luck), Trace({}), lambda power: None, folder / "graves")

    def append(self, name: str, data: bytes, *, flush: bool = False) -> Path:
        path = self.home / name
        new = not path.exists()
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_APPEND)
        with watched(self.disk):
            if new:
                made(path)
            write_all(descriptor, data)
            os.close(descriptor)
            if flush:
                sync_path(path)
                sync_path(path.parent)
        return path

    def names(self) -> set[str]:
        """Of all files."""
        return {str(path.relative_to(self.home)) for path in self.home.rglob("*") if path.is_file()}

    def crash(self, *, power: bool) -> None:
        left = self.folder / "left"
        self.disk.keep(self.home, left, power=power)
        shutil.rmtree(self.home)
        left.rename(self.home)

    def after_a_power_cut(self, name: str) -> bytes:
        """What is in the file; nothing, where it is not there."""
        self.crash(power=True)
        path = self.home / name
        return path.read_bytes() if path.exists() else b""


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
    assert {"allotted", "cut off"} <= seen


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


def make_file(machine: Machine) -> None:
    machine.append("new.jsonl", b"")


def make_file_in_a_folder(machine: Machine) -> None:
    with watched(machine.disk):
        make_folders(machine.home / "day")
    machine.append("day/new.jsonl", b"", flush=True)


def move_file(machine: Machine) -> None:
    with watched(machine.disk):
        move(machine.home / "old.jsonl", machine.home / "archive" / "old.jsonl")


def remove_file(machine: Machine) -> None:
    with watched(machine.disk):
        remove(machine.home / "old.jsonl")
        remove(machine.home / "never.jsonl")


@pytest.mark.parametrize("killed", [False, True], ids=["power cut", "power cut after a kill"])
@pytest.mark.parametrize(
    ("change", "then", "folder"),
    [
        (make_file, {"old.jsonl", "new.jsonl"}, "."),
        (make_file_in_a_folder, {"old.jsonl", "day/new.jsonl"}, "."),
        (move_file, {"archive/old.jsonl"}, "."),
        (move_file, {"archive/old.jsonl"}, "archive"),
        (remove_file, set(), "."),
    ],
)
async def test_a_name_is_sure_when_its_folder_was_flushed_and_not_before(
    change: Callable[[Machine], None], then: set[str], folder: str, killed: bool, machines: Iterator[Machine]
) -> None:
    unsure, sure = set(), set()
    for number, machine in enumerate(machines):
        (machine.home / "archive").mkdir()
        machine.append("old.jsonl", b"old", flush=True)
        change(machine)
        if killed:
            machine.crash(power=False)
        assert machine.names() == then
        if number % 2:
            with watched(machine.disk):
                sync_path(machine.home / folder)
        machine.crash(power=True)
        (sure if number % 2 else unsure).add(frozenset(machine.names()))
        if machine.names() == {"old.jsonl"}:
            assert (machine.home / "old.jsonl").read_bytes() == b"old"
    assert unsure == {frozenset({"old.jsonl"}), frozenset(then)}
    assert sure == {frozenset(then)}


async def test_names_of_one_folder_are_lost_from_the_last_one_on(machines: Iterator[Machine]) -> None:
    left = set()
    for machine in machines:
        machine.append("1", b"")
        machine.append("2", b"")
        with watched(machine.disk):
            move(machine.home / "2", machine.home / "3")
        machine.crash(power=True)
        left.add(frozenset(machine.names()))
    assert left == {frozenset(names) for names in ((), "1", "12", "13")}


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
