from __future__ import annotations

from typing import Any

import pytest

from protocol.errors import InvalidRequest
from protocol.initialize import InitializeParams
from protocol.thread_methods import ThreadIdParams, ThreadListParams, ThreadResumeParams, ThreadStartParams
from protocol.turn_methods import TurnStartParams
from protocol.validation import parse_params

INPUTS = "`text`, `image`, `localImage`, `audio`, `localAudio`, `skill`, `mention`"
POLICIES = "`untrusted`, `on-request`, `granular`, `never`"


def turn(**members: Any) -> dict[str, Any]:
    return {"threadId": "t", "input": [], **members}


@pytest.mark.parametrize(
    ("model", "params", "message"),
    [
        (ThreadIdParams, {}, "missing field `threadId`"),
        (InitializeParams, {"clientInfo": {"name": "x"}}, "missing field `version` at `clientInfo`"),
        (TurnStartParams, {"threadId": "t"}, "missing field `input`"),
        (TurnStartParams, {"input": 5}, "invalid type: integer `5`, expected a sequence at `input`"),
        (ThreadStartParams, {"model": 5}, "invalid type: integer `5`, expected a string at `model`"),
        (ThreadStartParams, {"model": 10**500}, "invalid type: huge integer, expected a string at `model`"),
        (ThreadStartParams, {"model": {}}, "invalid type: map, expected a string at `model`"),
        (ThreadStartParams, {"config": []}, "invalid type: sequence, expected a map at `config`"),
        (ThreadStartParams, "str", 'invalid type: string "str", expected struct ThreadStartParams'),
        (ThreadStartParams, 5, "invalid type: integer `5`, expected struct ThreadStartParams"),
        (ThreadStartParams, [], "invalid length 0, expected struct ThreadStartParams with 27 elements"),
        (
            ThreadStartParams,
            {"approvalPolicy": "bogus"},
            f"unknown variant `bogus`, expected one of {POLICIES} at `approvalPolicy`",
        ),
        (
            ThreadStartParams,
            {"approvalPolicy": {"bogus": {}}},
            f"unknown variant `bogus`, expected one of {POLICIES} at `approvalPolicy`",
        ),
        (
            ThreadStartParams,
            {"approvalPolicy": {"granular": {"rules": True}}},
            "missing field `sandbox_approval` at `approvalPolicy.granular`",
        ),
        (
            ThreadStartParams,
            {"sandbox": "x" * 5000},
            f"unknown variant `{'x' * 120}`, expected one of `read-only`, `workspace-write`, "
            "`danger-full-access` at `sandbox`",
        ),
        (ThreadListParams, {"limit": -1}, "invalid value: integer `-1`, expected u32 at `limit`"),
        (ThreadListParams, {"limit": 2**32}, "invalid value: integer `4294967296`, expected u32 at `limit`"),
        (ThreadListParams, {"limit": "x"}, 'invalid type: string "x", expected u32 at `limit`'),
        (ThreadListParams, {"limit": 1.5}, "invalid type: floating point `1.5`, expected u32 at `limit`"),
        (ThreadListParams, {"limit": True}, "invalid type: boolean `true`, expected u32 at `limit`"),
        (
            ThreadListParams,
            {"sortDirection": "up"},
            "unknown variant `up`, expected `asc` or `desc` at `sortDirection`",
        ),
        (ThreadListParams, {"cwd": 5}, "invalid type: integer `5`, expected a string or a sequence at `cwd`"),
        (ThreadListParams, {"cwd": ["a", 5]}, "invalid type: integer `5`, expected a string at `cwd[1]`"),
        (
            ThreadResumeParams,
            {"threadId": "t", "initialTurnsPage": 4},
            "invalid type: integer `4`, expected struct InitialTurnsPageParams at `initialTurnsPage`",
        ),
        (
            TurnStartParams,
            turn(input=[{"type": "bogus"}]),
            f"unknown variant `bogus`, expected one of {INPUTS} at `input[0]`",
        ),
        (TurnStartParams, turn(input=[{}]), "missing field `type` at `input[0]`"),
        (TurnStartParams, turn(input=[4]), "invalid type: integer `4`, expected a map at `input[0]`"),
        (TurnStartParams, turn(input=[{"type": "text"}]), "missing field `text` at `input[0]`"),
        (
            TurnStartParams,
            turn(sandboxPolicy={"type": "externalSandbox", "networkAccess": "q"}),
            "unknown variant `q`, expected `restricted` or `enabled` at `sandboxPolicy.networkAccess`",
        ),
    ],
)
def test_wrong_parameters_are_told_in_the_words_clients_know(model: Any, params: Any, message: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_params(model, params)
    assert refused.value.message == f"Invalid request: {message}"


def test_right_parameters_are_read_by_their_wire_names() -> None:
    params = parse_params(TurnStartParams, turn(approvalPolicy="never", unknown=1, thread_id="not this"))
    assert (params.thread_id, params.approval_policy) == ("t", "never")
