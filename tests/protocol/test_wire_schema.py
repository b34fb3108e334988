"""The watch on what the daemon sends: it knows every kind of message, and sees what is wrong with one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from protocol.notifications import SERVER_NOTIFICATIONS
from protocol.server_requests import SERVER_REQUESTS
from tests.support.traffic import Received, Traffic
from tests.support.wire_schema import ReferenceSchema, own_schema, problems
from transport.methods import METHODS

STATUS = "thread/status/changed"


def notification(params: Any, method: str = STATUS, **frame: Any) -> Received:
    message = {"method": method, "params": params, "emittedAtMs": 1, **frame}
    return Received("notification", method, message)


GOOD = notification({"threadId": "t", "status": {"type": "active", "activeFlags": []}})


@pytest.mark.parametrize("method", SERVER_NOTIFICATIONS)
def test_every_notification_has_a_shape(method: str) -> None:
    assert own_schema().validator(notification({}, method)) is not None


@pytest.mark.parametrize("method", SERVER_REQUESTS)
def test_every_server_request_has_a_shape(method: str) -> None:
    message = {"id": 0, "method": method, "params": {}}
    assert own_schema().validator(Received("request", method, message)) is not None


@pytest.mark.parametrize("method", [row.name for row in METHODS.values() if row.offered])
def test_every_answer_has_a_shape(method: str) -> None:
    assert own_schema().validator(Received("result", method, {"id": 1, "result": {}})) is not None


def test_a_good_message_is_no_problem() -> None:
    assert problems([GOOD], own_schema()) == []


@pytest.mark.parametrize(
    "bad",
    [
        notification({"threadId": "t"}),
        notification({"threadId": 5, "status": {"type": "idle"}}),
        notification({"threadId": "t", "status": {"type": "asleep"}}),
        notification({"threadId": "t", "status": {"type": "idle"}}, jsonrpc="2.0"),
        notification({"threadId": "t", "status": {"type": "idle"}}, emittedAtMs="now"),
        notification({}, "no/such"),
        Received("request", "item/commandExecution/requestApproval", {"id": 0, "method": "x", "params": {}}),
        Received("result", "thread/read", {"id": 1, "result": {}}),
        Received("result", "thread/loaded/list", {"id": 1, "result": {"data": []}, "jsonrpc": "2.0"}),
        Received("result", None, {"id": 1, "result": {}}),
        Received("error", "thread/read", {"id": 1, "error": {"code": "-32600", "message": "text"}}),
        Received("error", "thread/read", {"id": 1, "error": {"code": -32600}}),
    ],
    ids=str,
)
def test_a_message_that_does_not_fit_is_a_problem_that_names_it(bad: Received) -> None:
    [problem, *_] = problems([GOOD, bad], own_schema())
    assert str(bad.method) in problem or bad.method is None


def test_deltas_of_one_item_are_looked_at_once_and_everything_else_each_time() -> None:
    place = {"threadId": "t", "turnId": "u", "itemId": "i"}
    bad = [
        notification({**place, "delta": 1, "seq": number}, "item/agentMessage/delta") for number in range(9)
    ]
    assert len(problems(bad, own_schema())) == 1
    other = notification({**place, "itemId": "j", "delta": 1}, "item/agentMessage/delta")
    assert len(problems([*bad, other], own_schema())) == 2


def test_many_problems_are_cut_short() -> None:
    bad = [notification({"threadId": number}) for number in range(1000)]
    assert problems(bad, own_schema())[-1] == "... and perhaps more"


def test_an_answer_is_joined_to_its_request_and_an_error_without_an_id_to_none() -> None:
    traffic = Traffic()
    traffic.watch({"id": "a", "method": "thread/read"}, False)
    traffic.watch({"id": 1, "method": "thread/list"}, False)
    traffic.watch({"id": 1, "result": {}}, True)
    traffic.watch({"id": "a", "error": {}}, True)
    traffic.watch({"id": None, "error": {}}, True)
    traffic.watch({"id": 0, "method": "ask"}, True)
    assert [(got.kind, got.method) for got in traffic] == [
        ("result", "thread/list"),
        ("error", "thread/read"),
        ("error", None),
        ("request", "ask"),
    ]


@pytest.fixture
def small_reference(tmp_path: Path) -> ReferenceSchema:
    """A schema laid out as the reference writes it: a file for each union and each answer."""

    def union(*branches: dict[str, Any]) -> dict[str, Any]:
        return {
            "oneOf": list(branches),
            "definitions": {"Note": {"type": "object", "required": ["threadId"]}},
        }

    def branch(method: str, shape: dict[str, Any]) -> dict[str, Any]:
        return {"properties": {"method": {"enum": [method]}, "params": shape}, "required": ["params"]}

    files = {
        "ServerNotification.json": union(branch(STATUS, {"$ref": "#/definitions/Note"})),
        "ServerRequest.json": union(branch("ask", {"$ref": "#/definitions/Note"})),
        "ClientRequest.json": union(branch("thread/read", {"$ref": "#/definitions/ThreadReadParams"})),
        "JSONRPCError.json": {"required": ["id", "error"]},
        "v2/ThreadReadResponse.json": {
            "properties": {"thread": {"$ref": "#/definitions/Thread"}},
            "required": ["thread"],
            "definitions": {"Thread": {"required": ["id"]}},
        },
    }
    (tmp_path / "v2").mkdir()
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    return ReferenceSchema(tmp_path)


@pytest.mark.parametrize(
    ("received", "good"),
    [
        (notification({"threadId": "t"}), True),
        (notification({}), False),
        (notification({}, "unknown/note"), False),
        (Received("request", "ask", {"id": 0, "method": "ask", "params": {"threadId": "t"}}), True),
        (Received("request", "ask", {"id": 0, "method": "ask", "params": {}}), False),
        (Received("result", "thread/read", {"id": 1, "result": {"thread": {"id": "t"}}}), True),
        (Received("result", "thread/read", {"id": 1, "result": {"thread": {}}}), False),
        (Received("result", "unknown/method", {"id": 1, "result": {}}), False),
        (Received("error", "thread/read", {"id": 1, "error": {}}), True),
        (Received("error", None, {"id": None, "error": {}}), True),
    ],
    ids=str,
)
def test_the_reference_s_layout_is_understood(
    small_reference: ReferenceSchema, received: Received, good: bool
) -> None:
    assert (problems([received], small_reference) == []) is good
