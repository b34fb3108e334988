"""What a program does with the official Python client; run in the client's own environment, not in ours.

    python official_client_script.py SHIM WORK first
    python official_client_script.py SHIM WORK again THREAD_ID
    python official_client_script.py SHIM WORK lifecycle

Prints one JSON object: what the client saw.
"""
# ruff: noqa: ANN001, ANN003, ANN201

import json
import sys

from openai_codex import ApprovalMode, Codex, CodexConfig, Sandbox
from openai_codex._goal import _GoalStreamCursor
from openai_codex.errors import CodexError
from openai_codex.generated.v2_all import SortDirection, ThreadSortKey


def streamed(thread, text):
    """Run a turn by its stream; what was seen of it."""
    seen = {"methods": [], "deltas": "", "items": []}
    for event in thread.turn(text).stream():
        seen["methods"].append(event.method)
        if event.method == "item/agentMessage/delta":
            seen["deltas"] += event.payload.delta
        elif event.method == "item/completed":
            seen["items"].append(event.payload.item.root.model_dump(mode="json", by_alias=True))
        elif event.method == "turn/completed":
            seen["status"] = event.payload.turn.status.value
    return seen


def history(thread):
    """The stored turns: status, and of each item its type and text."""
    turns = thread.read(include_turns=True).thread.turns
    return [
        {
            "status": turn.status.value,
            "items": [item.root.model_dump(mode="json", by_alias=True) for item in turn.items],
        }
        for turn in turns
    ]


def listed(codex):
    return [[row.id, row.preview, row.status.root.type] for row in codex.thread_list(limit=10).data]


def first(codex, work):
    thread = codex.thread_start(cwd=work, sandbox=Sandbox.full_access, approval_mode=ApprovalMode.deny_all)
    turns = [
        streamed(thread, "say hello from the script"),
        streamed(thread, "shell echo $((6*7)) | say it is done"),
    ]
    result = thread.run("usage 1234 the third")
    return {
        "thread": thread.id,
        "turns": turns,
        "third": {
            "status": result.status.value,
            "text": result.final_response,
            "tokens": result.usage.last.total_tokens,
        },
        "listed": listed(codex),
        "models": [model.model for model in codex.models().data],
        "account": codex.account().requires_openai_auth,
    }


def again(codex, thread_id):
    before = listed(codex)
    thread = codex.thread_resume(thread_id)
    read = history(thread)
    turn = thread.turn("hold gate one two three")
    steps = turn.stream()
    next(event for event in steps if event.method == "item/agentMessage/delta")
    turn.interrupt()
    last = list(steps)[-1]
    return {
        "listed": before,
        "history": read,
        "interrupted": last.payload.turn.status.value,
        "after": streamed(thread, "say and on"),
    }


def ids(codex, **filters):
    return [row.id for row in codex.thread_list(**filters).data]


def refused(call):
    """What the client's exception says; it must raise one."""
    try:
        call()
    except CodexError as error:
        return f"{type(error).__name__}: {error}"
    raise AssertionError("it was not refused")


def lifecycle(codex, work):
    """The thread API from end to end, but for compact."""
    full = {"sandbox": Sandbox.full_access, "approval_mode": ApprovalMode.deny_all}
    one = codex.thread_start(cwd=work, **full)
    one.run("say apples")
    two = codex.thread_start(cwd=work, model="another-model", **full)
    two.run("say pears")
    seen = {"one": one.id, "two": two.id}
    one.set_name("first of all")
    seen["name"] = one.read().thread.name

    order = {"sort_key": ThreadSortKey.created_at, "sort_direction": SortDirection.asc}
    page = codex.thread_list(limit=1, **order)
    seen["lists"] = {
        "ascending": ids(codex, **order),
        "first page": [row.id for row in page.data],
        "second page": ids(codex, limit=1, cursor=page.next_cursor, **order),
        "by term": ids(codex, search_term="pears"),
        "by name": ids(codex, search_term="first of all"),
        "by folder": ids(codex, cwd=work, **order),
        "by another folder": ids(codex, cwd="/nowhere"),
        "by provider": ids(codex, model_providers=["nobody"]),
        "archived": ids(codex, archived=True),
    }

    fork = codex.thread_fork(one.id, include_turns=False)
    brief = codex.thread_fork(one.id, ephemeral=True, model="third-model")
    fork.run("say plums")
    brief.run("say cherries")
    seen["fork"] = {
        "from": fork.read().thread.forked_from_id,
        "turns": len(fork.read(include_turns=True).thread.turns),
        "ephemeral": brief.read().thread.ephemeral,
        "source turns": len(one.read(include_turns=True).thread.turns),
    }

    handle = two.turn("hold steered never to the end")
    steps = handle.stream()
    next(event for event in steps if event.method == "item/agentMessage/delta")
    seen["steered"] = handle.steer("say steered away").turn_id == handle.id
    done = list(steps)[-1]
    seen["steered status"] = done.payload.turn.status.value
    handle = two.turn("hold stopped never to the end")
    steps = handle.stream()
    next(event for event in steps if event.method == "item/agentMessage/delta")
    seen["stale steer"] = refused(lambda: type(handle)(handle._client, two.id, "nope").steer("x"))
    handle.interrupt()
    seen["interrupted status"] = list(steps)[-1].payload.turn.status.value

    codex.thread_archive(one.id)
    seen["archived"] = [ids(codex, archived=True), one.id in ids(codex)]
    seen["resume of archived"] = refused(lambda: codex.thread_resume(one.id))
    seen["archive again"] = refused(lambda: codex.thread_archive(one.id))
    back = codex.thread_unarchive(one.id)
    seen["unarchived"] = [back.id == one.id, back.read().thread.status.root.type]
    resumed = codex.thread_resume(one.id, model="fourth-model")
    seen["after"] = resumed.run("say apples again").final_response
    seen["empty name"] = refused(lambda: resumed.set_name("  "))
    seen["unknown"] = refused(lambda: codex.thread_resume("01a1f8e9-ee21-7cc3-87b6-578ab84f94e3"))
    return seen


def goal(codex, work):
    """A goal as the client's own (still private) operation runs it: one logical turn."""
    thread = codex.thread_start(cwd=work, sandbox=Sandbox.full_access, approval_mode=ApprovalMode.deny_all)
    state, _ = codex._client.start_goal_operation(thread.id, "reach it")
    cursor, seen, done = _GoalStreamCursor(state), [], False
    while not done:
        events, done = cursor.process(codex._client.next_goal_notification(state))
        seen += events
    codex._client.unregister_goal_operation(state)
    items = [event.payload.item.root.type for event in seen if event.method == "item/completed"]
    last = seen[-1].payload.turn
    return {"methods": [event.method for event in seen], "items": items, "status": last.status.value}


def main():
    shim, work, part, *rest = sys.argv[1:]
    with Codex(CodexConfig(codex_bin=shim, cwd=work, client_name="official")) as codex:
        parts = {
            "first": lambda: first(codex, work),
            "again": lambda: again(codex, *rest),
            "goal": lambda: goal(codex, work),
        }
        seen = parts.get(part, lambda: lifecycle(codex, work))()
        seen["server"] = codex.metadata.serverInfo.version
    print(json.dumps(seen))


main()
