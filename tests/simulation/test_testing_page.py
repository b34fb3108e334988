"""docs/testing.md does what it says: its code is run as its reader would run it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run_pytest(folder: Path, *arguments: str) -> str:
    """What a test run in the folder says; warnings are errors, and no plugin but ours is there."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    return done.stdout + done.stderr


def project(folder: Path, *tests: str) -> Path:
    page = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")
    enabled = re.search(r"^    (pytest_plugins = .*)$", page, re.MULTILINE)
    assert enabled is not None
    (folder / "conftest.py").write_text(enabled[1])
    (folder / "test_page.py").write_text("\n\n".join(tests or re.findall(r"```python\n(.*?)```", page, re.S)))
    return folder


def test_every_example_of_the_page_passes_without_another_plugin(tmp_path: Path) -> None:
    said = run_pytest(project(tmp_path))
    assert re.search(r"^24 passed", said, re.MULTILINE), said


def test_a_failure_names_its_seed_and_the_option_replays_it(tmp_path: Path) -> None:
    unlucky = """
async def test_unlucky(world, client):
    await client.start_thread()
    assert world.seed != 3
"""
    project(tmp_path, unlucky)
    said = run_pytest(tmp_path, "--world-seeds", "6")
    assert "1 failed, 5 passed" in said
    assert "replay with: pytest --world-seed 3 'test_page.py::test_unlucky[seed=3]'" in said
    again = run_pytest(tmp_path, "--world-seed", "3", "test_page.py::test_unlucky[seed=3]")
    assert "1 failed" in again


def test_loading_the_plugin_loads_nothing_of_the_daemon(tmp_path: Path) -> None:
    look = """
import sys


def test_nothing_is_loaded():
    rooms = ("actors", "agent", "persistence", "transport", "trio", "spoold.testing.world")
    assert not {name for name in sys.modules if name.startswith(rooms)}
"""
    assert "1 passed" in run_pytest(project(tmp_path, look))


def test_a_test_fails_in_which_the_daemon_logs_a_traceback_unless_it_says_that_it_provokes_it(
    tmp_path: Path,
) -> None:
    provoked = """
import logging
import pytest


def log_one():
    try:
        raise ZeroDivisionError("a bug")
    except ZeroDivisionError:
        logging.getLogger("actors.x").exception("an actor failed")


async def test_it(client):
    log_one()


@pytest.mark.world(complaints=True)
async def test_it_on_purpose(client, world):
    log_one()
    assert len(world.complaints) == 1
"""
    said = run_pytest(project(tmp_path, provoked), "--world-seed", "1")
    assert "1 failed, 1 passed" in said
    assert "the daemon has logged what should not happen" in said
    assert "an actor failed: ZeroDivisionError('a bug')" in said
    assert "replay with: pytest --world-seed 1 'test_page.py::test_it[seed=1]'" in said


def test_an_async_fixture_on_the_world_says_what_to_do_instead(tmp_path: Path) -> None:
    fixture = """
import pytest


@pytest.fixture
def named(client):
    return client


@pytest.fixture
async def thread(named):
    return await named.start_thread()


async def test_it(thread):
    pass
"""
    said = run_pytest(project(tmp_path, fixture))
    assert "3 errors" in said
    assert said.count("the fixture 'thread' cannot be async") >= 3
    assert "AssertionError" not in said


def test_a_list_of_seeds_names_them_and_a_marker_that_is_wrong_fails_its_test_alone(tmp_path: Path) -> None:
    marked = """
import pytest


@pytest.mark.world(seeds=[3, 4])
async def test_these(world):
    assert world.seed in (3, 4)


@pytest.mark.world(seeds="many")
async def test_wrong_seeds(world):
    pass


@pytest.mark.world(seed=3)
async def test_wrong_name(world):
    pass
"""
    said = run_pytest(project(tmp_path, marked))
    assert "2 passed, 2 errors" in said
    assert "@pytest.mark.world: seeds are a number of seeds or a list of them, not 'many'" in said
    assert "@pytest.mark.world: " in said
    assert "unexpected keyword argument 'seed'" in said
