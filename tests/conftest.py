"""What tests of several rooms share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.faulty_disk import FaultyDisk, compile_library


@pytest.fixture(scope="session")
def faulty_disk_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What makes the disk of a process faulty, compiled once."""
    return compile_library(tmp_path_factory.mktemp("faulty-disk"))


@pytest.fixture
def faulty_disk(faulty_disk_library: Path, tmp_path: Path) -> FaultyDisk:
    """The disk of the home that ``open_daemon(tmp_path)`` uses."""
    return FaultyDisk(faulty_disk_library, tmp_path / "home")
