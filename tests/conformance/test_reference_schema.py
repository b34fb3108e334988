"""What the daemon sends fits the schema that the reference server writes of itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import trio

from protocol.schema import bundle
from tests.support.every_message import converse
from tests.support.scripted_model import open_scripted_model
from tests.support.wire_schema import CACHED, REFERENCE_LACKS, ReferenceSchema, problems
from transport.methods import METHODS

LACKING = {
    "ClientRequest": {
        "thread/fork.experimentalDisablePredictionMcp",
        "thread/fork.experimentalPredictionMode",
        "thread/items/list.deferOutput",
        "turn/start.disabledPluginIds",
        "turn/start.parentTurnId",
        "turn/start.rootTurnId",
        "turn/start.toolOutput",
        "turn/start.turnTrigger",
    },
    "ServerNotification": set[str](),
    "ServerRequest": {
        "item/commandExecution/requestApproval.additionalPermissions",
        "item/commandExecution/requestApproval.approvalId",
        "item/commandExecution/requestApproval.networkApprovalContext",
        "item/commandExecution/requestApproval.proposedNetworkPolicyAmendments",
    },
}
"""Members of params that the reference has and spoold does not: those of requests are ignored, as unknown
members are, those of questions never sent. docs/deviations.md has them."""


@pytest.mark.conformance
async def test_every_kind_of_message_fits_the_reference_s_schema(
    schema_of_reference: ReferenceSchema, tmp_path: Path, nursery: trio.Nursery
) -> None:
    async with open_scripted_model(nursery) as model:
        received = await converse(tmp_path, model)
    assert problems(received, schema_of_reference) == []


@pytest.mark.conformance
@pytest.mark.parametrize("union", LACKING)
def test_every_member_of_params_that_the_reference_knows_is_known_here(
    schema_of_reference: ReferenceSchema, union: str
) -> None:
    theirs = json.loads((CACHED / f"{union}.json").read_bytes())
    whole = bundle(METHODS.values(), experimental=True)
    ours = members(whole["$defs"][union], whole)
    known = members(theirs, theirs)
    shared = ours.keys() - REFERENCE_LACKS
    lacking = {f"{method}.{name}" for method in shared for name in known[method] - ours[method]}
    assert lacking == LACKING[union]


def members(union: Mapping[str, Any], whole: Mapping[str, Any]) -> dict[str, set[str]]:
    """The members of the params of each method of a union."""
    found = {}
    for branch in union["oneOf"]:
        named = branch["properties"]["method"]
        method = named["const"] if "const" in named else named["enum"][0]
        shape = branch["properties"].get("params", {})
        while "$ref" in shape:
            _, place, name = shape["$ref"].split("/")
            shape = whole[place][name]
        found[method] = set(shape.get("properties", {}))
    return found
