"""The faulty disk of the tests does what it says, to everything below its folder and to nothing else."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.faulty_disk import FaultyDisk, Mode, Record

READ_IT = "os.open('ten', os.O_RDONLY)"
WRITE_IT = "os.open('ten', os.O_RDWR)"
APPEND_TO_IT = "os.open('ten', os.O_WRONLY | os.O_APPEND)"
OTHER = "os.open('/etc/passwd', os.O_RDONLY)"

GROWTH = {
    "write": f"os.write({APPEND_TO_IT}, b'x')",
    "pwrite": f"os.pwrite({WRITE_IT}, b'x', 10)",
    "pwritev": f"os.pwritev({WRITE_IT}, [b'x', b'y'], 10)",
    "writev": f"os.writev({APPEND_TO_IT}, [b'x', b'y'])",
    "sendfile": f"os.sendfile({APPEND_TO_IT}, {OTHER}, 0, 5)",
    "copy_file_range": f"os.copy_file_range({OTHER}, {WRITE_IT}, 5, 0, 10)",
    "fallocate": f"os.posix_fallocate({WRITE_IT}, 0, 11)",
    "a file object": "Path('ten').open('ab', buffering=0).write(b'x')",
}
OVERWRITING = {"a write over what is there": f"os.write({WRITE_IT}, b'x')"}
BEGINNING = {
    "a new file": "os.close(os.open('new', os.O_WRONLY | os.O_CREAT))",
    "a new folder": "os.mkdir('new')",
    "a link": "os.link('ten', 'new')",
    "a symbolic link": "os.symlink('ten', 'new')",
}
TAKING = {
    "truncation": "os.truncate('ten', 3)",
    "truncation of a descriptor": f"os.ftruncate({WRITE_IT}, 3)",
    "opening with O_TRUNC": "open('ten', 'wb').close()",
    "renaming": "os.rename('ten', 'd/ten')",
    "replacing": "os.replace('ten', 'd/ten')",
    "removing a file": "os.unlink('ten')",
    "removing a folder": "os.rmdir('d')",
    "the mode": "os.chmod('ten', 0o600)",
    "the time": "os.utime('ten')",
    "touching": "Path('ten').touch()",
}
FLUSHING = {
    "flushing": f"os.fsync({READ_IT})",
    "flushing the data": f"os.fdatasync({READ_IT})",
    "flushing a folder": "os.fsync(os.open('d', os.O_RDONLY))",
}
READING = {
    "reading": f"os.read({READ_IT}, 1) and None",
    "reading at": f"os.pread({READ_IT}, 1, 0) and None",
    "reading a file object": "Path('ten').read_bytes() and None",
}
CHANGING = GROWTH | OVERWRITING | BEGINNING | TAKING
ACTS = CHANGING | FLUSHING | READING

PROGRAM_BEGINS = """
import json, os, sqlite3, subprocess, sys, threading
from pathlib import Path

def outcome(act):
    try:
        return eval(act)
    except sqlite3.Error as error:
        return error.sqlite_errorname
    except OSError as error:
        return -error.errno

os.chdir(sys.argv[1])
"""
EACH_IN_ITS_FOLDER = """
found = {}
for name, act in json.loads(sys.argv[2]).items():
    os.chdir(name)
    found[name] = outcome(act)
    os.chdir("..")
print(json.dumps(found))
"""
ONE_AFTER_THE_OTHER = "print(json.dumps([outcome(act) for act in json.loads(sys.argv[2])]))"


def run(disk: FaultyDisk, program: str, argument: object = None, code: int = 0) -> str:
    """What a process on this disk prints."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM_BEGINS + program, str(disk.folder), json.dumps(argument)],
        env=os.environ | disk.variables,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.returncode == code
    return done.stdout.strip()


def outcomes(disk: FaultyDisk, *acts: str) -> list[object]:
    """What becomes of each expression: what it gives, or its error's name or negative number."""
    found: list[object] = json.loads(run(disk, ONE_AFTER_THE_OTHER, acts))
    return found


def fill(folder: Path) -> None:
    """A file of ten bytes and an empty folder."""
    (folder / "d").mkdir(parents=True)
    (folder / "ten").write_bytes(b"0123456789")


@pytest.mark.parametrize(
    ("mode", "error", "failing"),
    [
        ("full", errno.ENOSPC, GROWTH | BEGINNING),
        ("io", errno.EIO, GROWTH | OVERWRITING | FLUSHING),
        ("sync", errno.EIO, FLUSHING),
        ("readonly", errno.EROFS, CHANGING),
        ("read", errno.EIO, READING),
        (None, 0, {}),
    ],
)
def test_a_mode_fails_what_it_says_and_nothing_else(
    faulty_disk: FaultyDisk, mode: Mode | None, error: int, failing: Mapping[str, str]
) -> None:
    for name in ACTS:
        fill(faulty_disk.folder / name)
    if mode is not None:
        faulty_disk.fail(mode)
    found = json.loads(run(faulty_disk, EACH_IN_ITS_FOLDER, ACTS))
    failed = {name: result for name, result in found.items() if result is not None and result < 0}
    assert failed == dict.fromkeys(failing, -error)
    assert faulty_disk.refused >= len(failing)
    for name in GROWTH.keys() - failing.keys():
        size = 10 + (found[name] or 1)
        assert (faulty_disk.folder / name / "ten").stat().st_size == size, name


def test_a_disk_that_fills_up_takes_what_fits_and_then_nothing(faulty_disk: FaultyDisk) -> None:
    fill(faulty_disk.folder)
    faulty_disk.fail("full", after_bytes=5)
    over, append = f"os.write({WRITE_IT}, b'x' * 12)", f"os.write({APPEND_TO_IT}, b'y' * 30)"
    assert outcomes(faulty_disk, over, append, append, over) == [12, 3, -errno.ENOSPC, 12]
    assert (faulty_disk.folder / "ten").read_bytes() == b"x" * 12 + b"y" * 3
    faulty_disk.heal()
    assert outcomes(faulty_disk, append) == [30]


def test_a_disk_fails_so_often_and_is_well_again(faulty_disk: FaultyDisk) -> None:
    fill(faulty_disk.folder)
    faulty_disk.fail("sync", times=2)
    assert outcomes(faulty_disk, *[FLUSHING["flushing"]] * 4) == [-errno.EIO, -errno.EIO, None, None]
    assert faulty_disk.refused == 2


def test_only_the_named_files_fail(faulty_disk: FaultyDisk) -> None:
    (faulty_disk.folder / "d").mkdir()
    faulty_disk.fail("io", only=["*.jsonl", "d/*"])
    acts = [f"Path({name!r}).write_bytes(b'x')" for name in ("a.jsonl", "d/e.jsonl", "d/f", "g", "/dev/null")]
    assert outcomes(faulty_disk, *acts) == [-errno.EIO] * 3 + [1, 1]


def test_only_the_named_calls_fail(faulty_disk: FaultyDisk) -> None:
    fill(faulty_disk.folder)
    faulty_disk.fail("io", calls=["remove"])
    acts = TAKING["removing a file"], OVERWRITING["a write over what is there"], TAKING["renaming"]
    assert outcomes(faulty_disk, *acts) == [-errno.EIO, 1, -errno.EIO]


def test_files_elsewhere_and_programs_that_are_started_see_no_fault(
    faulty_disk: FaultyDisk, tmp_path: Path
) -> None:
    fill(faulty_disk.folder)
    faulty_disk.fail("io")
    elsewhere = f"Path({str(tmp_path / 'elsewhere')!r}).write_bytes(b'x')"
    shell = "subprocess.run(['sh', '-c', 'env; echo yes > new'], stdout=subprocess.PIPE).stdout.decode()"
    wrote, said = outcomes(faulty_disk, elsewhere, shell)
    assert wrote == 1
    assert (faulty_disk.folder / "new").read_text() == "yes\n"
    assert "LD_PRELOAD" not in str(said)
    assert "FAULTY_DISK" not in str(said)


BEGIN_A_DATABASE = """
connection = sqlite3.connect("d.sqlite", isolation_level=None)
connection.execute("PRAGMA journal_mode=WAL")
connection.execute("PRAGMA synchronous=FULL")
connection.execute("CREATE TABLE t (x)")
"""


@pytest.mark.parametrize(
    ("mode", "failure"),
    [("full", "SQLITE_FULL"), ("io", "SQLITE_IOERR_WRITE"), ("sync", "SQLITE_IOERR_FSYNC")],
)
def test_a_database_meets_the_faults_and_goes_on_without_them(
    faulty_disk: FaultyDisk, mode: Mode, failure: str
) -> None:
    # The process itself puts the fault on: it has the page of the disk under its own name.
    page = faulty_disk.variables["FAULTY_DISK_CONTROL"]
    faulty_disk.fail(mode)
    sick = Path(page).read_bytes()
    faulty_disk.heal()
    add = """outcome("connection.execute('INSERT INTO t VALUES (1)') and None")"""
    turn = "os.write(os.open({page!r}, os.O_WRONLY), bytes.fromhex({data!r}))"
    program = "\n".join(
        [
            BEGIN_A_DATABASE,
            f"before = {add}",
            turn.format(page=page, data=sick.hex()),
            f"during = {add}",
            turn.format(page=page, data=bytes(4).hex()),
            f"after = {add}",
            "print(before, during, after, *connection.execute('SELECT count(*) FROM t').fetchone())",
        ]
    )
    assert run(faulty_disk, program) == f"None {failure} None 2"


def told(record: Record) -> tuple[object, ...]:
    """What of a record a test can know beforehand."""
    match record.kind:
        case "write" | "truncate":
            return record.kind, record.path, record.offset, record.length, record.file_size, record.before
        case "rename":
            return record.kind, record.path, record.target
    return record.kind, record.path


def test_the_journal_tells_what_was_done_in_its_order(faulty_disk: FaultyDisk) -> None:
    fill(faulty_disk.folder)
    inode = (faulty_disk.folder / "ten").stat().st_ino
    outcomes(
        faulty_disk,
        "os.mkdir('e')",
        "Path('e/new').write_bytes(b'abc')",
        f"os.pwrite({WRITE_IT}, b'xyz', 8)",
        f"os.write({APPEND_TO_IT}, b'!')",
        FLUSHING["flushing"],
        "os.truncate('ten', 4)",
        "os.rename('ten', 'd/eleven')",
        FLUSHING["flushing a folder"],
        "os.unlink('e/new')",
        "os.rmdir('e')",
    )
    journal = faulty_disk.journal()
    assert [told(record) for record in journal] == [
        ("mkdir", "e"),
        ("create", "e/new"),
        ("write", "e/new", 0, 3, 0, b""),
        ("write", "ten", 8, 3, 10, b"89"),
        ("write", "ten", 11, 1, 11, b""),
        ("flush", "ten"),
        ("flushed", "ten"),
        ("truncate", "ten", 4, 0, 12, b"4567xyz!"),
        ("rename", "ten", "d/eleven"),
        ("flush", "d"),
        ("flushed", "d"),
        ("unlink", "e/new"),
        ("rmdir", "e"),
    ]
    assert {each.inode for each in journal if "ten" in each.path} == {inode}
    assert journal[5].number == journal[6].number
    assert (faulty_disk.graves / str(journal[11].number)).read_bytes() == b"abc"


def test_a_flush_that_fails_has_failed_in_the_journal(faulty_disk: FaultyDisk) -> None:
    fill(faulty_disk.folder)
    faulty_disk.fail("sync", times=1)
    outcomes(faulty_disk, *[FLUSHING["flushing"]] * 2)
    assert [each.kind for each in faulty_disk.journal()] == ["flush", "failed", "flush", "flushed"]


def test_a_kill_loses_nothing_of_the_journal(faulty_disk: FaultyDisk) -> None:
    program = """
descriptors = [os.open(str(number), os.O_WRONLY | os.O_CREAT | os.O_APPEND) for number in range(4)]

def fill(descriptor):
    while True:
        os.write(descriptor, b"0123456789")
        if descriptor == descriptors[0] and os.lseek(descriptor, 0, os.SEEK_CUR) > 5000:
            os.kill(os.getpid(), 9)

for descriptor in descriptors[1:]:
    threading.Thread(target=fill, args=(descriptor,)).start()
fill(descriptors[0])
"""
    run(faulty_disk, program, code=-signal.SIGKILL)
    journal = faulty_disk.journal()
    for number in range(4):
        written = [each for each in journal if each.kind == "write" and each.path == str(number)]
        assert [each.offset for each in written] == list(range(0, len(written) * 10, 10))
        # The last one may not have been done.
        assert (faulty_disk.folder / str(number)).stat().st_size in (
            len(written) * 10,
            len(written) * 10 - 10,
        )
