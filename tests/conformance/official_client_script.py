"""What a program does with the official Python client; run in the client's own environment, not in ours.

    python official_client_script.py SHIM WORK first
    python official_client_script.py SHIM WORK again THREAD_ID

Prints one JSON object: what the client saw.
"""
# ruff: noqa: ANN001, ANN201

import json
import sys

from openai_codex import ApprovalMode, Codex, CodexConfig, Sandbox


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


def main():
    shim, work, part, *rest = sys.argv[1:]
    with Codex(CodexConfig(codex_bin=shim, cwd=work, client_name="official")) as codex:
        seen = first(codex, work) if part == "first" else again(codex, *rest)
        seen["server"] = codex.metadata.serverInfo.version
    print(json.dumps(seen))


main()
