"""A power cut in the tests takes what a real one could take, and leaves what had to stay."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

from tests.support.faulty_disk import FaultyDisk
from tests.support.power_cut import cut_power

PROGRAM_BEGINS = """
import os, sqlite3, sys
from pathlib import Path

def append(path, data):
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, data)
    os.close(descriptor)

def flush(path):
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)

os.chdir(sys.argv[1])
"""


def run(disk: FaultyDisk, program: str) -> None:
    """Run it to its end on this disk; there it is killed."""
    done = subprocess.run(
        [
            sys.executable,
            "-I",
            "-S",
            "-c",
            f"{PROGRAM_BEGINS}{program}\nos.kill(os.getpid(), 9)",
            disk.folder,
        ],
        env=os.environ | disk.variables,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL


def tree(folder: Path) -> dict[str, bytes | None]:
    """Every file with what is in it, and every folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def outcomes(disk: FaultyDisk, program: str, count: int) -> list[dict[str, bytes | None]]:
    """What so many power cuts leave of an empty folder in which the program has run."""
    found = []
    for seed in range(count):
        for path in sorted(disk.folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        disk.forget()
        run(disk, program)
        cut_power(disk, random.Random(seed))
        found.append(tree(disk.folder))
    return found


def test_what_was_flushed_stays_and_the_rest_is_there_gone_torn_or_spoiled(faulty_disk: FaultyDisk) -> None:
    program = "append('a', b'sure'); flush('a'); flush('.'); append('a', b'unsure'); append('a', b'too')"
    found = [each["a"] for each in outcomes(faulty_disk, program, 25)]
    assert all(data is not None and data.startswith(b"sure") for data in found)
    assert {b"sure", b"sureunsuretoo", b"sureunsure\0\0\0", b"sure" + bytes(9)} <= set(found)
    torn = [data for data in found if data and b"sureunsuretoo".startswith(data) and 4 < len(data) < 13]
    assert torn != []


def test_a_name_is_sure_when_its_folder_is_flushed(faulty_disk: FaultyDisk) -> None:
    program = """
os.mkdir("d")
append("d/a", b"a")
flush("d/a")
append("d/b", b"b")
flush("d/b")
flush("d")
os.rename("d/a", "d/c")
os.unlink("d/b")
"""
    found = outcomes(faulty_disk, program, 25)
    sure = [each for each in found if each]
    # Without its own name in the folder above, nothing of a folder is found.
    assert {} in found
    assert all(
        each in ({"d/a": b"a", "d/b": b"b"}, {"d/c": b"a", "d/b": b"b"}, {"d/c": b"a"})
        for each in [{name: data for name, data in each.items() if data is not None} for each in sure]
    )
    assert len({tuple(each) for each in sure}) == 3


def test_a_move_between_folders_happens_or_does_not(faulty_disk: FaultyDisk) -> None:
    program = """
os.mkdir("from"); os.mkdir("to"); flush(".")
append("from/a", b"a"); flush("from/a"); flush("from")
os.rename("from/a", "to/a")
"""
    found = [sorted(name for name in each if "/" in name) for each in outcomes(faulty_disk, program, 12)]
    assert {tuple(names) for names in found} == {("from/a",), ("to/a",)}
    flushed = outcomes(faulty_disk, f"{program}\nflush('to')", 12)
    assert all("to/a" in each for each in flushed)


def test_what_a_failed_flush_was_to_write_is_not_made_sure_by_the_next(faulty_disk: FaultyDisk) -> None:
    program = """
append("a", b"lost?")
flush(".")
try:
    flush("a")
except OSError:
    pass
append("a", b"sure")
flush("a")
"""
    found = []
    for seed in range(20):
        (faulty_disk.folder / "a").unlink(missing_ok=True)
        faulty_disk.forget()
        faulty_disk.fail("sync", times=1, only=["a"])
        run(faulty_disk, program)
        cut_power(faulty_disk, random.Random(seed))
        found.append((faulty_disk.folder / "a").read_bytes())
    assert b"lost?sure" in found
    assert bytes(5) + b"sure" in found
    assert all(data.endswith(b"sure") for data in found)


def test_what_a_killed_process_was_flushing_is_made_sure_by_the_next_one(faulty_disk: FaultyDisk) -> None:
    run(faulty_disk, "append('a', b'kept'); flush('.')")
    # The record of a flush in which the process was killed: a begin without an end.
    faulty_disk.fail("sync", times=1, only=["a"])
    run(faulty_disk, "try: flush('a')\nexcept OSError: pass")
    cut_the_end_of_the_last_flush(faulty_disk)
    run(faulty_disk, "append('a', b' too'); flush('a')")
    cut_power(faulty_disk, random.Random(0), lose_all=True)
    assert (faulty_disk.folder / "a").read_bytes() == b"kept too"


def cut_the_end_of_the_last_flush(disk: FaultyDisk) -> None:
    path = Path(disk.variables["FAULTY_DISK_JOURNAL"])
    *before, last = disk.journal()
    assert last.kind == "failed"
    head = 64 + len(last.path)
    path.write_bytes(path.read_bytes()[:-head])
    assert disk.journal() == before


EVERYTHING = """
append("old", b"more")
os.truncate("old", 2)
with open("old", "wb") as file:
    file.write(b"again")
descriptor = os.open("over", os.O_RDWR)
os.pwrite(descriptor, b"xyz", 1)
os.pwritev(descriptor, [b"uv", b"w"], 8)
os.ftruncate(descriptor, 9)
os.posix_fallocate(descriptor, 0, 30)
os.makedirs("new/folder")
append("new/folder/file", b"new")
os.rename("new/folder/file", "d/file")
os.replace("d/file", "d/in")
os.unlink("gone")
os.rmdir("empty")
os.link("over", "second")
connection = sqlite3.connect("d.sqlite", isolation_level=None)
connection.execute("PRAGMA journal_mode=WAL")
connection.execute("PRAGMA synchronous=OFF")
connection.execute("CREATE TABLE t (x)")
for number in range(500):
    connection.execute("INSERT INTO t VALUES (randomblob(500))")
connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
connection.execute("DELETE FROM t WHERE random() % 2")
connection.execute("VACUUM")
"""


def test_where_nothing_was_flushed_all_can_be_lost(faulty_disk: FaultyDisk) -> None:
    home = faulty_disk.folder
    for name in ("d", "empty"):
        (home / name).mkdir()
    for name in ("old", "over", "gone", "d/in"):
        (home / name).write_bytes(name.encode() * 5)
    before = tree(home)
    # Some programs flush whatever they are told.
    faulty_disk.fail("sync")
    run(faulty_disk, EVERYTHING)
    assert tree(home) != before
    cut_power(faulty_disk, random.Random(0), lose_all=True)
    assert tree(home) == before
