"""Every kind of message that the daemon sends fits the schemas."""

from __future__ import annotations

from pathlib import Path

import trio

from tests.support.every_message import converse, missing
from tests.support.scripted_model import open_scripted_model
from tests.support.wire_schema import own_schema, problems, reference_schema

NEVER_HERE = {"notification thread/closed", "result account/rateLimits/read"}
"""Comes when a thread has been idle for half an hour, or has failed."""


async def test_every_kind_of_message_fits_our_schema_and_the_reference_s_where_it_is_there(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    async with open_scripted_model(nursery) as model:
        received = await converse(tmp_path, model)
    assert problems(received, own_schema()) == []
    if (reference := reference_schema()) is not None:
        assert problems(received, reference) == []
    assert missing(received) == NEVER_HERE
