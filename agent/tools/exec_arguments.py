"""The arguments of ``exec_command``: what the model is told about them, and how a call's JSON is read."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from agent.tools.call_arguments import BadArguments, read_as

DEFAULT_YIELD_MS = 10_000
_MIN_YIELD_MS, _MAX_YIELD_MS = 250, 30_000

SPEC: dict[str, Any] = {
    "type": "function",
    "name": "exec_command",
    "description": (
        "Runs a shell command on the user's machine and returns its output (standard output and error "
        "together). When the main process ends, what it left running in the background is ended too."
    ),
    "strict": False,
    "parameters": {
        "type": "object",
        "properties": {
            "cmd": {"type": "string", "description": "Shell command to execute."},
            "workdir": {
                "type": "string",
                "description": "Working directory, absolute or relative to the turn's. Default: the turn's.",
            },
            "timeout_ms": {
                "type": "number",
                "description": "Kill the command after this many milliseconds. Default: never.",
            },
            "yield_time_ms": {
                "type": "number",
                "description": (
                    "How long to wait for the command to end before returning what it wrote so far. "
                    "Default: timeout_ms where given, else 10000."
                ),
            },
            "login": {"type": "boolean", "description": "Run the shell as a login shell. Default: true."},
            "sandbox_permissions": {
                "type": "string",
                "enum": ["use_default", "require_escalated"],
                "description": (
                    "`require_escalated` asks the user to run the command without the sandbox. "
                    "Default: `use_default`."
                ),
            },
            "justification": {
                "type": "string",
                "description": "With `require_escalated`: one sentence that tells the user why.",
            },
        },
        "required": ["cmd"],
        "additionalProperties": False,
    },
}


class ExecArguments(BaseModel):
    """The arguments. ``shell`` is accepted and not used: commands run in the machine's own shell."""

    model_config = ConfigDict(extra="ignore", defer_build=True)
    cmd: str = Field(strict=True)
    workdir: str | None = None
    timeout_ms: int | None = Field(default=None, ge=1, le=86_400_000)
    yield_time_ms: int | None = Field(default=None, ge=0)
    shell: str | None = None
    login: bool = True
    justification: str | None = None
    sandbox_permissions: Literal["use_default", "require_escalated"] | None = None

    @property
    def escalated(self) -> bool:
        """Whether the model wants to run without the sandbox."""
        return self.sandbox_permissions == "require_escalated"

    @property
    def time_limit(self) -> float | None:
        """Seconds until the command is killed, or None."""
        return None if self.timeout_ms is None else self.timeout_ms / 1000

    @property
    def wait(self) -> float:
        """Seconds that the call waits for the command. A stated timeout is itself a statement of patience."""
        if self.yield_time_ms is not None:
            return min(max(self.yield_time_ms, _MIN_YIELD_MS), _MAX_YIELD_MS) / 1000
        return float("inf") if self.timeout_ms is not None else DEFAULT_YIELD_MS / 1000


def read_arguments(text: str) -> ExecArguments:
    """The arguments in ``text``, a JSON object.

    Raises:
        BadArguments: it is no JSON object, or a member is missing or wrong.
    """
    arguments = read_as(ExecArguments, text)
    for name in ("cmd", "workdir"):
        if "\0" in (getattr(arguments, name) or ""):
            raise BadArguments(f"`{name}` has a NUL character")
    return arguments
