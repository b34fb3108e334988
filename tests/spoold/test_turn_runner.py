from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from agent.model.http_stream import ProviderHttp
from persistence.config import Config
from persistence.home import Home
from spoold.system_runtime import SystemRuntime
from spoold.turn_runner import RunnerFactory

MOCK = 'model_provider = "mock"\n[model_providers.mock]\nname = "mock"\nbase_url = "http://127.0.0.1:9/v1"\n'


def factory(home: Path, text: str) -> RunnerFactory:
    (home / "config.toml").write_text(text)
    return RunnerFactory(Config.load(Home(home)), SystemRuntime())


async def test_the_first_thread_has_the_model_client_made_before_a_turn_asks_for_it(
    tmp_path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    make = ProviderHttp._make_client
    monkeypatch.setattr(ProviderHttp, "_make_client", lambda http: made.append(make(http)) or made[-1])
    runners = factory(tmp_path, MOCK)
    prepared = trio.Event()

    async def prepare() -> None:
        await runners.prepare()
        prepared.set()

    nursery.start_soon(prepare)
    await trio.testing.wait_all_tasks_blocked()
    assert made == []
    runners.new()
    with trio.fail_after(30):
        await prepared.wait()
    assert len(made) == 1
    await runners.aclose()


@pytest.mark.parametrize(
    "text", ['model_provider = "offline"', MOCK.replace("http://127.0.0.1:9/v1", "nonsense")]
)
async def test_a_provider_that_needs_no_client_or_cannot_have_one_disturbs_nobody(
    tmp_path: Path, text: str
) -> None:
    runners = factory(tmp_path, text)
    runners.new()
    with trio.fail_after(30):
        await runners.prepare()
    await runners.aclose()
