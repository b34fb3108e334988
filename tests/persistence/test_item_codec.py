"""Items survive the way into a rollout line and back, and foreign or broken ones do no harm."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persistence.item_codec import (
    error_from_rollout,
    error_to_rollout,
    item_from_rollout,
    item_to_rollout,
    legacy_item,
)
from persistence.settings_codec import (
    approval_from_rollout,
    approval_to_rollout,
    sandbox_from_rollout,
    sandbox_to_rollout,
)
from protocol.base import encode
from protocol.items import (
    AgentMessageItem,
    CommandExecutionItem,
    ContextCompactionItem,
    DynamicToolCallItem,
    EnteredReviewModeItem,
    ExitedReviewModeItem,
    FileChangeItem,
    ReasoningItem,
    ThreadItem,
    UserMessageItem,
)
from protocol.settings import (
    DangerFullAccess,
    ExternalSandbox,
    GranularApproval,
    GranularPolicy,
    ReadOnly,
    SandboxPolicy,
    WorkspaceWrite,
)
from protocol.shell_text import join_command, split_command
from protocol.threads import TurnError
from protocol.user_input import ImageInput, LocalImageInput, MentionInput, SkillInput, TextInput

ITEMS: list[ThreadItem] = [
    UserMessageItem(
        id="u",
        client_id="c1",
        content=[
            TextInput(text="see", text_elements=[{"placeholder": "x"}]),
            ImageInput(url="data:image/png;base64,AA=="),
            LocalImageInput(path="/tmp/a.png"),
            SkillInput(name="s", path="/s"),
            MentionInput(name="m", path="/m"),
        ],
    ),
    AgentMessageItem(id="a", text="hi", phase="commentary"),
    ReasoningItem(id="r", summary=["one", "two"], content=["raw"]),
    CommandExecutionItem(
        id="c",
        command="/bin/bash -lc 'echo hi'",
        cwd="/somewhere/a place",
        process_id="1",
        source="unifiedExecStartup",
        status="failed",
        command_actions=[
            {"type": "unknown", "command": "echo hi"},
            {"type": "listFiles", "command": "ls", "path": None},
        ],
        aggregated_output="hi\n",
        exit_code=3,
        duration_ms=1234,
    ),
    CommandExecutionItem(id="c", command="true", cwd="/", status="completed", exit_code=0, duration_ms=0),
    FileChangeItem(
        id="f",
        changes=[
            {"path": "/a", "kind": {"type": "add"}, "diff": "x\n"},
            {"path": "/b", "kind": {"type": "update", "move_path": None}, "diff": "@@ -1 +1 @@"},
            {"path": "/c", "kind": {"type": "delete"}, "diff": "gone"},
        ],
        status="completed",
    ),
    DynamicToolCallItem(
        id="d",
        tool="lookup",
        arguments={"k": 1},
        status="completed",
        content_items=[{"type": "inputText", "text": "v"}],
        success=True,
        duration_ms=7,
    ),
    ContextCompactionItem(id="x"),
    EnteredReviewModeItem(id="e", review="check it"),
    ExitedReviewModeItem(id="e", review="fine"),
]


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: item.type)
def test_an_item_comes_back_from_its_rollout_line_as_it_went(item: ThreadItem) -> None:
    stored = json.loads(encode(item_to_rollout(item)))
    back = item_from_rollout(stored, item.started_at_ms, item.completed_at_ms)
    assert back is not None
    assert back.to_wire() == item.to_wire()


def test_a_command_is_stored_in_the_form_other_programs_read() -> None:
    stored = item_to_rollout(ITEMS[3])
    assert stored["type"] == "CommandExecution"
    assert stored["command"] == ["/bin/bash", "-lc", "echo hi"]
    assert stored["cwd"] == "file:///somewhere/a%20place"
    assert stored["parsed_cmd"][0] == {"type": "unknown", "cmd": "echo hi"}
    assert stored["parsed_cmd"][1]["type"] == "list_files"
    assert stored["source"] == "unified_exec_startup"
    assert stored["duration"] == {"secs": 1, "nanos": 234_000_000}


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["/bin/bash", "-lc", "echo hi"], "/bin/bash -lc 'echo hi'"),
        (["/bin/bash", "-lc", "python3 -c 'print(42)'"], "/bin/bash -lc \"python3 -c 'print(42)'\""),
        (["/bin/bash", "-lc", "ls"], "/bin/bash -lc ls"),
        (["echo", ""], "echo ''"),
    ],
)
def test_a_command_line_is_quoted_as_clients_know_it(argv: list[str], text: str) -> None:
    assert join_command(argv) == text


words = st.text() | st.text(st.sampled_from("ab '\"\\$`!^\n\t*;"))


@given(st.lists(words, min_size=1))
def test_a_command_line_splits_into_the_words_it_was_joined_from(argv: list[str]) -> None:
    assert split_command(join_command(argv)) == argv


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"type": "UserMessage"},
        {"type": "UserMessage", "id": "u", "content": "no list"},
        {"type": "UserMessage", "id": "u", "content": [{"type": "hologram"}]},
        {"type": "UserMessage", "id": "u", "content": [7]},
        {"type": "AgentMessage", "id": "a", "content": [3]},
        {"type": "AgentMessage", "id": 5, "content": []},
        {"type": "Reasoning", "id": "r", "summary_text": "text"},
        {"type": "CommandExecution", "id": "c", "command": 5, "cwd": "/", "status": "completed"},
        {"type": "CommandExecution", "id": "c", "command": ["a"], "cwd": "/", "status": "unheard of"},
        {"type": "FileChange", "id": "f", "changes": {"/a": {"type": "add"}}, "status": "completed"},
        {"type": "FileChange", "id": "f", "changes": [], "status": "completed"},
        {"type": "Hologram", "id": "h"},
        {"type": ["UserMessage"], "id": "h"},
    ],
)
def test_an_item_that_is_malformed_or_of_unknown_kind_is_passed_over(body: dict[str, Any]) -> None:
    assert item_from_rollout(body, None, None) is None


@pytest.mark.parametrize("event", [{"type": "user_message"}, {"type": "agent_reasoning"}, {"type": "odd"}])
def test_a_malformed_legacy_event_is_passed_over(event: dict[str, Any]) -> None:
    assert legacy_item([event], "item-1") is None


@pytest.mark.parametrize(
    "info",
    [None, "internalServerError", "other", {"httpConnectionFailed": {"httpStatusCode": 401}}],
)
def test_a_turn_error_comes_back_with_its_names(info: Any) -> None:
    error = TurnError(message="no", codex_error_info=info, additional_details="because")
    stored = error_to_rollout(error)
    assert error_from_rollout(json.loads(encode(stored))) == error


def test_error_names_are_stored_in_snake_case() -> None:
    error = TurnError(message="", codex_error_info={"httpConnectionFailed": {"httpStatusCode": 401}})
    expected = {"http_connection_failed": {"http_status_code": 401}}
    assert error_to_rollout(error)["codex_error_info"] == expected


@pytest.mark.parametrize(
    "policy",
    [
        DangerFullAccess(),
        ReadOnly(),
        ReadOnly(network_access=True),
        WorkspaceWrite(writable_roots=["/a"], exclude_slash_tmp=True),
        ExternalSandbox(network_access="enabled"),
    ],
)
def test_a_sandbox_policy_comes_back_as_it_went(policy: SandboxPolicy) -> None:
    assert sandbox_from_rollout(json.loads(encode(sandbox_to_rollout(policy)))) == policy


def test_an_approval_policy_comes_back_as_it_went() -> None:
    granular = GranularPolicy(
        granular=GranularApproval(sandbox_approval=True, rules=False, mcp_elicitations=True)
    )
    assert approval_from_rollout(json.loads(encode(approval_to_rollout(granular)))) == granular
    assert approval_from_rollout(approval_to_rollout("untrusted")) == "untrusted"
    assert approval_from_rollout("on-failure") == "on-request"


@pytest.mark.parametrize(
    "value", [None, 5, "x", {}, {"type": "moat"}, {"type": "read-only", "network_access": 7}]
)
def test_a_policy_nobody_knows_is_none(value: object) -> None:
    assert sandbox_from_rollout(value) is None
    assert approval_from_rollout(value) is None
