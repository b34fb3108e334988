"""docs/protocol.md is what the tables say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from protocol.notifications import SERVER_NOTIFICATIONS
from protocol.server_requests import SERVER_REQUESTS
from spoold.protocol_page import FILE, page
from transport.methods import METHODS

ROOT = Path(__file__).parents[2]


def test_the_page_is_up_to_date() -> None:
    written = (ROOT / FILE).read_text(encoding="utf-8")
    assert written == page(), "run `.venv/bin/python -m spoold.protocol_page`"


def test_the_page_names_everything_in_the_tables() -> None:
    text = page()
    for name in (*METHODS, *SERVER_NOTIFICATIONS, *SERVER_REQUESTS):
        assert f"`{name}`" in text


def test_every_link_of_the_page_leads_to_a_heading() -> None:
    headings = {
        re.sub(r"[^a-z0-9_-]", "", heading.lower())
        for heading in re.findall(r"^#+ (.*)$", page(), re.MULTILINE)
    }
    links = set(re.findall(r"\]\(#([^)]*)\)", page()))
    assert links <= headings


def test_it_is_written_below_the_current_folder_and_a_wrong_folder_is_told(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "spoold.protocol_page"]
    refused = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert refused.stderr.startswith("Error: docs/protocol.md cannot be written")
    (tmp_path / "docs").mkdir()
    subprocess.run(command, cwd=tmp_path, capture_output=True, check=True)
    assert (tmp_path / FILE).read_text(encoding="utf-8") == page()
