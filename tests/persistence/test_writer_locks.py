"""Who may write to a thread, agreed upon between processes that share a home."""

from __future__ import annotations

import fcntl
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from persistence.errors import StoreError
from persistence.home import Home
from persistence.writer_locks import ThreadClaims, WriterLocks
from protocol.errors import ActiveWriter

THREAD = "01a1fb70-58c6-78a0-9385-9314e1aa3ef4"


@pytest.fixture
def locks(tmp_path: Path) -> WriterLocks:
    return WriterLocks(Home.open(tmp_path))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "thread-writer-locks" / f"{THREAD}.lock"


def test_a_claimed_thread_is_locked_where_the_reference_looks_and_free_afterwards(
    locks: WriterLocks, path: Path
) -> None:
    lock = locks.claim(THREAD)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    with path.open() as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    lock.release()
    assert not path.exists()
    lock.release()
    locks.claim(THREAD).release()


def test_a_thread_that_another_process_writes_to_is_refused_until_that_dies(
    locks: WriterLocks, path: Path
) -> None:
    holding = (
        "import fcntl, sys; held = open(sys.argv[1], 'w'); fcntl.flock(held, fcntl.LOCK_EX); "
        "print(1, flush=True); input()"
    )
    path.parent.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", holding, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"1\n"
        with pytest.raises(ActiveWriter) as refused:
            locks.claim(THREAD)
        assert refused.value.message == f"thread {THREAD} already has an active writer"
        other.kill()
        other.wait()
    # What the dead process left is no lock.
    locks.claim(THREAD).release()


def test_two_claims_of_one_process_exclude_each_other(locks: WriterLocks) -> None:
    lock = locks.claim(THREAD)
    with pytest.raises(ActiveWriter, match="active writer"):
        locks.claim(THREAD)
    locks.claim(THREAD[:-1] + "5").release()
    lock.release()


def test_a_file_that_is_removed_while_it_is_being_locked_does_not_count(
    locks: WriterLocks, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = fcntl.flock
    removed: list[int] = []

    def remove_first(descriptor: int, operation: int) -> None:
        if not removed:
            removed.append(descriptor)
            path.unlink()
        really(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", remove_first)
    before = len(list(Path("/proc/self/fd").iterdir()))
    lock = locks.claim(THREAD)
    assert removed
    assert path.exists(), "the lock is on the file that others find"
    lock.release()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_folder_that_cannot_be_used_is_the_disks_fault(locks: WriterLocks, path: Path) -> None:
    path.parent.write_text("in the way")
    with pytest.raises(StoreError) as failed:
        locks.claim(THREAD)
    assert failed.value.fault == "disk"


def test_a_claim_is_its_owners_until_it_is_released(tmp_path: Path) -> None:
    claims = ThreadClaims(Home.open(tmp_path))
    claims.hold("one", THREAD)
    claims.hold("one", THREAD)
    with pytest.raises(ActiveWriter):
        claims.hold("two", THREAD)
    claims.release("two")
    with pytest.raises(ActiveWriter):
        claims.hold("two", THREAD)
    claims.release("one")
    claims.release("one")
    claims.hold("two", THREAD)


def test_a_file_system_that_cannot_lock_keeps_nobody_from_working(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    claims = ThreadClaims(Home.open(tmp_path))
    (tmp_path / "thread-writer-locks").write_text("in the way")
    claims.hold("one", THREAD)
    claims.release("one")
    assert f"thread {THREAD} is not locked" in caplog.text
