"""Fixtures of the agent's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.tools.terminals import open_terminals
from tests.agent.stage import SeededRuntime, Stage


@pytest.fixture
async def stage(tmp_path: Path, nursery: object) -> AsyncIterator[Stage]:
    async with open_terminals(SeededRuntime()) as terminals:
        work, home = tmp_path / "work", tmp_path / "home"
        work.mkdir()
        home.mkdir()
        environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(home)}
        yield Stage(terminals, str(work), environment=environment)
