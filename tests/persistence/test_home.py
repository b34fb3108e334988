"""The home folder: which one is chosen, what is refused, who holds it."""

from __future__ import annotations

import os
import random
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from persistence.home import Home, HomeError, HomeInUse, resolve_home
from tests.support.faulty_disk import FaultyDisk
from tests.support.power_cut import cut_power

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("flag", "environ", "expected"),
    [
        ("/flag", {"SPOOLD_HOME": "/a", "CODEX_HOME": "/b", "HOME": "/h"}, "/flag"),
        (None, {"SPOOLD_HOME": "/a", "CODEX_HOME": "/b", "HOME": "/h"}, "/a"),
        (None, {"CODEX_HOME": "/b", "HOME": "/h"}, "/b"),
        (None, {"HOME": "/h"}, "/h/.spoold"),
        (None, {"SPOOLD_HOME": "", "CODEX_HOME": "", "HOME": "/h"}, "/h/.spoold"),
        ("~/x", {"HOME": "/h"}, "/h/x"),
    ],
)
def test_the_flag_wins_then_the_variables_then_the_default(
    flag: str | None, environ: dict[str, str], expected: str
) -> None:
    assert resolve_home(flag, environ) == Path(expected)


def test_a_relative_home_becomes_absolute() -> None:
    assert resolve_home("some/where", {}) == Path.cwd() / "some/where"


def test_the_default_home_without_HOME_is_one_clear_error() -> None:
    with pytest.raises(HomeError, match="HOME is not set"):
        resolve_home(None, {})


def test_a_missing_home_is_made_for_its_owner_only(tmp_path: Path) -> None:
    home = Home.open(tmp_path / "new" / "home")
    assert home.root.is_dir()
    assert stat.S_IMODE(home.root.stat().st_mode) == 0o700


def test_a_home_that_was_made_outlives_a_power_cut(faulty_disk_library: Path, tmp_path: Path) -> None:
    disk = FaultyDisk(faulty_disk_library, tmp_path / "disk")
    program = "import sys, pathlib, persistence.home as h; h.Home.open(pathlib.Path(sys.argv[1]))"
    for seed in range(8):
        home = disk.folder / str(seed) / "new" / "home"
        subprocess.run(
            [sys.executable, "-c", program, home], cwd=ROOT, env=os.environ | disk.variables, check=True
        )
        cut_power(disk, random.Random(seed))
        assert home.is_dir()


def test_an_existing_home_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    Home.open(tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


@pytest.mark.parametrize("below", ["", "/deeper/still"])
def test_a_file_in_the_place_of_the_home_is_refused_in_one_line(tmp_path: Path, below: str) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(HomeError, match="is not a folder") as caught:
        Home.open(Path(f"{file}{below}"))
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_home_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(HomeError, match="cannot be written"):
            Home.open(tmp_path)
        with pytest.raises(HomeError, match="cannot be made"):
            Home.open(tmp_path / "inner")
    finally:
        tmp_path.chmod(0o700)


def test_the_places_in_a_home_are_the_documented_ones(tmp_path: Path) -> None:
    home = Home(tmp_path)
    places = [home.config_path, home.sessions, home.archived_sessions, home.database, home.control_socket]
    assert [str(place.relative_to(tmp_path)) for place in places] == [
        "config.toml",
        "sessions",
        "archived_sessions",
        "spoold.sqlite",
        "app-server-control/app-server-control.sock",
    ]


def test_a_home_has_one_owner_until_it_is_released(tmp_path: Path) -> None:
    home = Home.open(tmp_path)
    claim = home.claim()
    with pytest.raises(HomeInUse, match="in use by another spoold"):
        home.claim()
    claim.release()
    claim.release()
    home.claim().release()
    assert list(tmp_path.iterdir()) == []
