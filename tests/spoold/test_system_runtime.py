"""The real Runtime keeps its promises also when the clock does not."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import uuid

import pytest
import uuid_utils

from protocol.runtime import Runtime
from spoold.system_runtime import SystemRuntime


def test_it_is_a_runtime() -> None:
    runtime: Runtime = SystemRuntime()
    assert 0 <= runtime.random() < 1
    assert runtime.monotonic() <= runtime.monotonic()
    assert abs(runtime.now_ms() - time.time() * 1000) < 5000


def test_ids_are_version_7_in_canonical_form_and_strictly_increasing() -> None:
    runtime = SystemRuntime()
    ids = [runtime.new_id() for _ in range(5000)]
    assert ids == sorted(set(ids))
    for text in (ids[0], ids[-1]):
        parsed = uuid.UUID(text)
        assert (str(parsed), parsed.version, parsed.variant) == (text, 7, uuid.RFC_4122)


def test_ids_go_on_increasing_when_the_clock_is_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = SystemRuntime()
    newest = runtime.new_id()
    old = uuid_utils.UUID("01000000-0000-7000-8000-000000000000")
    monkeypatch.setattr(uuid_utils, "uuid7", lambda: old)
    later = [runtime.new_id(), runtime.new_id()]
    assert newest < later[0] < later[1]
    assert uuid.UUID(later[1]).version == 7


def test_local_time_is_in_the_machines_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.environ.get("TZ")
    try:
        monkeypatch.setenv("TZ", "UTC-05:30")
        time.tzset()
        assert SystemRuntime().local_time(1_795_177_443_999) == "2026-11-20T17-54-03"
    finally:
        monkeypatch.undo()
        time.tzset()
    assert os.environ.get("TZ") == before
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d", SystemRuntime().local_time(0))


def test_a_daemon_may_have_as_many_files_open_as_the_machine_lets_it() -> None:
    limits = "import resource; print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    code = f"import spoold.system_runtime as s; s.allow_open_files(); {limits}"
    code = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (100, 900)); {code}"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert out.stdout == b"900\n"
