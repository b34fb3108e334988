"""What the model is told besides the conversation itself.

Instructions, the facts of its environment, and the user's input in the form of the Responses API.

The developer message and the environment message are part of the context, so they are added once and again
only when what they say has changed.
"""

from __future__ import annotations

import base64
import os
import re
import stat
from collections.abc import Iterable

import trio

from agent.context import developer_message, input_text, user_message
from agent.events import ItemCompleted, Submission, TurnSettings
from agent.model.events import ResponseItem
from protocol.items import UserMessageItem
from protocol.runtime import Runtime
from protocol.settings import ApprovalPolicy, DangerFullAccess, ExternalSandbox, GranularPolicy, ReadOnly
from protocol.user_input import (
    ImageInput,
    LocalImageInput,
    MentionInput,
    SkillInput,
    TextInput,
    UserInput,
)

MAX_IMAGE_BYTES = 20 * 1024 * 1024

BASE_INSTRUCTIONS = """\
You are an agent that works for a user on their own machine, through spoold, a local daemon that holds your \
conversation. The user may watch from several programs at once, may add to a request while you work on it, \
and may interrupt you at any time.

- Work until the request is done, then say plainly what you did and what you found. Be brief.
- Look before you change anything: read the files that matter, keep to the style you find, change no more \
than was asked.
- Use the tools you are offered to run commands. Prefer `rg` to `grep` where it exists. Run independent \
commands in one go.
- A command may run in a sandbox. When it fails because of that and the user's request needs it, ask for it \
with escalated permissions and one sentence that says why; otherwise find another way.
- Never undo or overwrite work that is not yours, and do not commit or publish unless you were asked to.
- If something fails, say so; do not pretend it worked."""

TURN_ABORTED = (
    "<turn_aborted>\nThe user interrupted the previous turn on purpose. Commands that it started may still "
    "be running or may have stopped half-way; check the state of things before you go on.\n</turn_aborted>"
)

_PERMISSIONS_TAG = "<permissions instructions>"
_ENVIRONMENT_TAG = "<environment_context>"
_IMAGE_TYPES = ((b"\x89PNG\r\n\x1a\n", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"GIF8", "image/gif"))


def instructions(settings: TurnSettings) -> str:
    """The base instructions of a turn: the thread's own, else ours."""
    return BASE_INSTRUCTIONS if settings.base_instructions is None else settings.base_instructions


def opening(
    context: Iterable[ResponseItem], settings: TurnSettings, runtime: Runtime, *, interrupted: bool
) -> tuple[ResponseItem, ...]:
    """The messages that a turn puts before the user's: only those that say something new."""
    messages: list[ResponseItem] = []
    seen = list(context)
    if interrupted:
        messages.append(user_message([input_text(TURN_ABORTED)]))
    told = _developer_message(settings)
    if _latest(seen, "developer", _PERMISSIONS_TAG) != _texts(told):
        messages.append(told)
    known = _latest(seen, "user", _ENVIRONMENT_TAG)
    cwd = re.search(r"<cwd>(.*?)</cwd>", known[0], re.DOTALL) if known else None
    if cwd is None or cwd.group(1) != settings.cwd:
        messages.append(user_message([input_text(_environment(settings, runtime))]))
    return tuple(messages)


async def completed_message(submission: Submission, now_ms: int) -> ItemCompleted:
    """A user's message as it enters the transcript and the model context."""
    message = user_message(await user_content(submission.input))
    item = UserMessageItem(
        id=submission.item_id,
        client_id=submission.client_id,
        content=submission.input,
        started_at_ms=now_ms,
        completed_at_ms=now_ms,
    )
    return ItemCompleted(item, context=(message,), context_first=True)


async def user_content(parts: Iterable[UserInput]) -> list[ResponseItem]:
    """The user's input as content parts. Files are read in a worker thread.

    What cannot be passed on (an unreadable image, sound) becomes a text that says so.
    """
    return [await _content_part(part) for part in parts]


async def _content_part(part: UserInput) -> ResponseItem:
    if isinstance(part, TextInput):
        return input_text(part.text)
    if isinstance(part, LocalImageInput):
        try:
            # A read has no effect, so a hanging file system need not hold up an interrupt.
            url = await trio.to_thread.run_sync(_data_url, part.path, abandon_on_cancel=True)
        except (OSError, ValueError) as error:
            why = (error.strerror if isinstance(error, OSError) else None) or str(error)
            return input_text(f"[The image {part.path} could not be read: {why}]")
        return {"type": "input_image", "image_url": url}
    if isinstance(part, ImageInput):
        if part.url:
            return {"type": "input_image", "image_url": part.url}
        return input_text("[An image without an address; it could not be passed on]")
    if isinstance(part, MentionInput | SkillInput):
        return input_text(f"[{'$' if isinstance(part, SkillInput) else '@'}{part.name}]({part.path})")
    return input_text("[A sound; this model is not given sound]")


def _data_url(path: str) -> str:
    """The image file at ``path`` as a data URL.

    Raises:
        OSError: it cannot be read.
        ValueError: it is too large, no ordinary file, or no image.
    """
    with open(path, "rb", opener=_without_waiting) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("not an ordinary file")
        data = file.read(MAX_IMAGE_BYTES + 1)
    if len(data) > MAX_IMAGE_BYTES:
        raise ValueError(f"larger than {MAX_IMAGE_BYTES} bytes")
    kind = next((kind for magic, kind in _IMAGE_TYPES if data.startswith(magic)), None)
    if kind is None and data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        kind = "image/webp"
    if kind is None:
        raise ValueError("not a PNG, JPEG, GIF or WebP image")
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _without_waiting(path: str, flags: int) -> int:
    """Opens a file; a named pipe does not wait for somebody who writes to it."""
    return os.open(path, flags | os.O_NONBLOCK)


def _developer_message(settings: TurnSettings) -> ResponseItem:
    texts = [f"{_PERMISSIONS_TAG}\n{_permissions(settings)}\n</permissions instructions>"]
    if settings.developer_instructions:
        texts.append(settings.developer_instructions)
    return developer_message(texts)


def _permissions(settings: TurnSettings) -> str:
    return f"{_sandbox_facts(settings)}\n{_approval_facts(settings.approval_policy)}"


def _sandbox_facts(settings: TurnSettings) -> str:
    policy = settings.sandbox_policy
    if isinstance(policy, DangerFullAccess):
        return "Commands run without a sandbox: every file is writable as far as the user's own rights go."
    if isinstance(policy, ExternalSandbox):
        return f"The whole machine is somebody else's sandbox; network access is {policy.network_access}."
    network = "Network access is allowed." if policy.network_access else "There is no network access."
    if isinstance(policy, ReadOnly):
        return f"Commands run in a sandbox: every file is readable, nothing is writable. {network}"
    roots = [settings.cwd, *policy.writable_roots]
    if not policy.exclude_slash_tmp:
        roots.append("/tmp")  # noqa: S108
    if not policy.exclude_tmpdir_env_var:
        roots.append("$TMPDIR")
    return (
        f"Commands run in a sandbox: every file is readable, writable is only {', '.join(roots)}. {network}"
    )


def _approval_facts(policy: ApprovalPolicy) -> str:
    if policy == "never":
        return "The user is never asked: escalated permissions are refused."
    if policy == "untrusted":
        return "The user is asked before every command."
    if isinstance(policy, GranularPolicy) and not policy.granular.sandbox_approval:
        return "Escalated permissions are refused."
    return (
        "To run a command without the sandbox, call the tool with `sandbox_permissions` set to "
        "`require_escalated` and a `justification`; the user is asked then."
    )


def _environment(settings: TurnSettings, runtime: Runtime) -> str:
    today = runtime.local_time(runtime.now_ms())[:10]
    return (
        f"{_ENVIRONMENT_TAG}\n  <cwd>{settings.cwd}</cwd>\n  <shell>bash</shell>\n"
        f"  <current_date>{today}</current_date>\n</environment_context>"
    )


def _latest(context: list[ResponseItem], role: str, tag: str) -> list[str] | None:
    """The texts of the latest message of ``role`` whose first text begins with ``tag``."""
    for item in reversed(context):
        if item.get("type") == "message" and item.get("role") == role:
            texts = _texts(item)
            if texts and texts[0].startswith(tag):
                return texts
    return None


def _texts(item: ResponseItem) -> list[str]:
    content = item.get("content")
    parts = content if isinstance(content, list) else []
    return [part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str)]
