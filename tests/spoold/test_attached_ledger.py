"""What a client is told when the daemon that served it is gone, from the lines that passed before."""

from __future__ import annotations

import json
from typing import Any

import pytest

from protocol.errors import InvalidRequest
from protocol.jsonrpc import encode_error, encode_notification, encode_request, encode_result
from spoold.attached_ledger import Ledger

PID = 4711


def line(**message: Any) -> bytes:
    return json.dumps(message).encode()


def hello(request_id: object = 1, **capabilities: Any) -> bytes:
    params = {"clientInfo": {"name": "c", "version": "1"}, "capabilities": capabilities}
    return line(id=request_id, method="initialize", params=params)


@pytest.fixture
def ledger() -> Ledger:
    """Of a client that has shaken hands."""
    ledger = Ledger()
    assert ledger.sent(hello()) is None
    assert ledger.received(encode_result(1, {}))
    return ledger


def losses(ledger: Ledger) -> list[Any]:
    return [json.loads(message) for message in ledger.losses(PID, 0)]


def test_what_was_not_answered_is_answered_with_an_error_once(ledger: Ledger) -> None:
    for request_id in (2, "2", 3, 4):
        ledger.sent(line(id=request_id, method="thread/list", params={}))
    assert ledger.received(encode_result(2, {"id": 3, "result": None}))
    assert ledger.received(encode_error(4, InvalidRequest("no")))
    lost = losses(ledger)
    assert [answer["id"] for answer in lost] == ["2", 3]
    assert {answer["error"]["code"] for answer in lost} == {-32603}
    assert {answer["error"]["data"]["reason"] for answer in lost} == {"ownerLost"}
    assert str(PID) in lost[0]["error"]["message"]
    assert losses(ledger) == []


def test_an_id_that_is_used_twice_is_owed_two_answers(ledger: Ledger) -> None:
    ledger.sent(line(id=7, method="a", params={}))
    ledger.sent(line(id=7, method="b", params={}))
    assert [answer["id"] for answer in losses(ledger)] == [7, 7]
    ledger.sent(line(id=7, method="a", params={}))
    ledger.sent(line(id=7, method="b", params={}))
    ledger.received(encode_result(7, {}))
    assert [answer["id"] for answer in losses(ledger)] == [7]


def test_ids_are_read_whatever_they_look_like(ledger: Ledger) -> None:
    for request_id in ('a"b\\', "é", "", -5):
        ledger.sent(line(id=request_id, method="m", params={}))
        ledger.received(encode_result(request_id, "x" * 100))
    assert losses(ledger) == []


def test_answers_and_notifications_of_the_client_are_owed_nothing(ledger: Ledger) -> None:
    ledger.sent(line(id=5, result={}))
    ledger.sent(line(method="initialized"))
    ledger.sent(b"[]")
    ledger.sent(b"no json")
    assert losses(ledger) == []


def test_a_line_that_is_no_text_is_answered_here() -> None:
    answer = Ledger().sent(b'{"id":1,"method":"\xff"}')
    assert answer is not None
    assert json.loads(answer)["error"]["code"] == -32700


def test_open_questions_are_withdrawn(ledger: Ledger) -> None:
    ledger.received(encode_request(0, "item/commandExecution/requestApproval", {"threadId": "t"}))
    ledger.received(encode_request(1, "item/commandExecution/requestApproval", {"threadId": "u"}))
    ledger.received(encode_notification("serverRequest/resolved", {"threadId": "t", "requestId": 0}, 0))
    [note] = losses(ledger)
    assert (note["method"], note["params"]) == ("serverRequest/resolved", {"threadId": "u", "requestId": 1})
    assert losses(ledger) == []


def test_the_next_daemon_is_greeted_and_the_client_gets_no_second_answer(ledger: Ledger) -> None:
    assert ledger.greeting() == hello()
    assert ledger.received(encode_notification("thread/started", {}, 0))
    assert not ledger.received(encode_result(1, {}))
    assert ledger.received(encode_result(1, {})), "a later request may have the same id"
    [warning] = ledger.warning(PID, 0)
    assert str(PID) in json.loads(warning)["params"]["message"]


def test_a_greeting_that_was_not_answered_is_repeated_and_its_answer_given() -> None:
    ledger = Ledger()
    ledger.sent(hello("h"))
    ledger.sent(line(id=2, method="thread/list", params={}))
    assert [answer["id"] for answer in losses(ledger)] == [2]
    assert ledger.greeting() == hello("h")
    assert ledger.warning(PID, 0) == []
    assert ledger.received(encode_result("h", {}))
    assert losses(ledger) == []


def test_a_greeting_that_failed_is_not_repeated() -> None:
    ledger = Ledger()
    ledger.sent(hello())
    ledger.received(encode_error(1, InvalidRequest("Invalid clientInfo.name")))
    assert ledger.greeting() is None
    ledger.sent(hello(2))
    ledger.received(encode_result(2, {}))
    assert ledger.greeting() == hello(2)


def test_a_second_greeting_is_no_greeting(ledger: Ledger) -> None:
    ledger.sent(hello(9, optOutNotificationMethods=["warning"]))
    ledger.received(encode_error(9, InvalidRequest("Already initialized")))
    assert ledger.greeting() == hello()
    assert len(ledger.warning(PID, 0)) == 1


def test_what_the_client_opted_out_of_is_not_sent() -> None:
    ledger = Ledger()
    ledger.sent(hello(optOutNotificationMethods=["warning", "serverRequest/resolved", 5]))
    ledger.received(encode_result(1, {}))
    ledger.received(encode_request(0, "item/tool/requestUserInput", {"threadId": "t"}))
    assert losses(ledger) == []
    assert ledger.warning(PID, 0) == []
