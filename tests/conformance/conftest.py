"""What is fetched for these tests: the reference server, its schema, the official client. All below .cache/.

What needs one of them is skipped, with the reason, where it is not to be had. Nothing is fetched unless
SPOOLD_CONFORMANCE is set (``make conformance`` sets it).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.reference import NoReference, install_reference
from tests.support.daemon_process import clean_environment
from tests.support.wire_schema import CACHED, ROOT, ReferenceSchema

OFFICIAL_CLIENT = "openai-codex"
FETCH_LIMIT = 600
"""Seconds for a download."""


@pytest.fixture(scope="session")
def asked_for() -> None:
    if os.environ.get("SPOOLD_CONFORMANCE") != "1":
        pytest.skip("needs the network; run by `make conformance` (SPOOLD_CONFORMANCE=1)")


@pytest.fixture(scope="session")
def reference(asked_for: None) -> Path:
    """The binary of the reference server."""
    try:
        return install_reference()
    except NoReference as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="session")
def schema_of_reference(reference: Path, tmp_path_factory: pytest.TempPathFactory) -> ReferenceSchema:
    """The schema that the reference writes of itself, made anew."""
    command = [str(reference), "app-server", "generate-json-schema", "--experimental", "--out", str(CACHED)]
    environment = clean_environment(tmp_path_factory.mktemp("schema"))
    subprocess.run(command, check=True, timeout=FETCH_LIMIT, env=environment)
    return ReferenceSchema(CACHED)


@pytest.fixture(scope="session")
def official_client(asked_for: None) -> Path:
    """The interpreter of an environment that has the official Python client, and nothing of ours."""
    folder = ROOT / ".cache" / "official-client"
    python = folder / "bin" / "python"
    if _has_client(python):
        return python
    for command in (
        [sys.executable, "-m", "venv", "--clear", str(folder)],
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", OFFICIAL_CLIENT],
    ):
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_LIMIT, check=False)
        except subprocess.TimeoutExpired:
            pytest.skip(f"{OFFICIAL_CLIENT} could not be installed: it took more than {FETCH_LIMIT} s")
        if done.returncode != 0:
            reason = (done.stderr or done.stdout).strip().splitlines()[-1:]
            pytest.skip(f"{OFFICIAL_CLIENT} could not be installed from PyPI: {' '.join(reason)}")
    return python


def _has_client(python: Path) -> bool:
    if not python.exists():
        return False
    return subprocess.run([str(python), "-c", "import openai_codex"], check=False).returncode == 0
