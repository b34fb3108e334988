"""The same script against the reference server and against spoold: the same story, no member left out."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.side_by_side import KNOWN, Performance, differences, the_script
from tests.support.daemon_process import SPOOLD, open_daemon
from tests.support.wire_schema import ReferenceSchema

QUIET = """
[features]
plugins = false
apps = false
remote_plugin = false

[analytics]
enabled = false
"""
"""Or the reference goes to the network."""


@pytest.mark.conformance
async def test_spoold_tells_the_same_story_as_the_reference_and_leaves_no_member_out(
    reference: Path, schema_of_reference: ReferenceSchema, tmp_path: Path
) -> None:
    shows = []
    for name, program in (("reference", (str(reference), "app-server")), ("spoold", SPOOLD)):
        async with open_daemon(
            tmp_path / name, program=program, config=QUIET, check_messages=name == "spoold"
        ) as daemon:
            show = Performance(daemon)
            await the_script(show)
            shows.append(show)
    found = differences(shows[0].acts, shows[1].acts)
    new = [line for line in found if line not in KNOWN]
    assert new == [], "\n".join(new)
    gone = [line for line in KNOWN if line not in found]
    assert gone == [], "these differences are no more; take them off the list of known ones"
