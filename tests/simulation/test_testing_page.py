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
    assert re.search(r"^21 passed", said, re.MULTILINE), said


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
