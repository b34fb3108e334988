"""The seam between a turn and its tools.

A tool gets one call of the model and the turn it belongs to, and gives back what the model is told plus,
where clients see one, the finished item; the turn posts both. A tool posts by itself only what happens before
that: the start of its item, its deltas, its questions.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import trio

from agent.events import TurnPort, TurnSettings
from agent.model.events import ResponseItem
from agent.tools.command_policy import Grants
from protocol.items import ThreadItem
from protocol.runtime import Runtime


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call as the model sent it. ``custom``: a tool whose input is plain text, not JSON."""

    call_id: str
    name: str
    arguments: str
    custom: bool = False


@dataclass(frozen=True, slots=True)
class ToolResult:
    """How a call ended.

    Attributes:
        output: what the model is told; a list of content parts where text does not do.
        item: the finished item, or None where there is none or it is still in progress.
        persist: False for an item that history does not keep.
        ends_turn: the user wants the turn to end here.
    """

    output: str | list[ResponseItem]
    item: ThreadItem | None = None
    persist: bool = True
    ends_turn: bool = False


@dataclass(frozen=True, slots=True)
class ToolTurn:
    """What a tool sees of the turn.

    Attributes:
        settings: what the turn runs with.
        port: the way to the actor.
        runtime: clock, ids, chance.
        grants: what the user accepted, for the session and in this turn.
        lingering: tasks that watch something after its call was answered; cancelled when the turn ends.
    """

    settings: TurnSettings
    port: TurnPort
    runtime: Runtime
    grants: Grants
    lingering: trio.Nursery


class Tool(Protocol):
    """One tool."""

    @property
    def name(self) -> str:
        """The name the model calls it by."""
        ...

    def spec(self) -> dict[str, Any]:
        """Its specification in the form of the Responses API."""
        ...

    async def run(self, call: ToolCall, turn: ToolTurn) -> ToolResult:
        """Work off one call. May run several times at once. Cancelled: posts nothing more."""
        ...


class ToolSet:
    """The tools of one loaded thread, by name."""

    def __init__(self, tools: Iterable[Tool]) -> None:
        self._tools = {tool.name: tool for tool in tools}

    def with_tools(self, tools: Iterable[Tool]) -> ToolSet:
        """The same with some more; one of a name that there is takes its place."""
        return ToolSet([*self._tools.values(), *tools])

    def specs(self) -> list[dict[str, Any]]:
        """What the model is offered."""
        return [tool.spec() for tool in self._tools.values()]

    async def run(self, call: ToolCall, turn: ToolTurn) -> ToolResult:
        """Run the tool that ``call`` names; the model is told when there is none."""
        tool = self._tools.get(call.name)
        if tool is None:
            kind = "custom tool call" if call.custom else "call"
            return ToolResult(f"unsupported {kind}: {call.name}")
        return await tool.run(call, turn)
