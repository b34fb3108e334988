"""The tools of a goal: the model looks at it, and says when it is reached or out of reach.

The goal belongs to the actor; these tools only ask it. They are offered while the thread has a goal.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from agent.events import ApprovalFailed, GoalReport
from agent.tools.call_arguments import BadArguments, read_as, unusable
from agent.tools.toolset import ToolCall, ToolResult, ToolTurn

GOAL_TOOLS = frozenset({"get_goal", "update_goal"})

GET_SPEC: dict[str, Any] = {
    "type": "function",
    "name": "get_goal",
    "description": "Returns the thread's goal: objective, status, and how much of its token budget is used.",
    "strict": False,
    "parameters": {"type": "object", "properties": {}, "additionalProperties": False},
}
UPDATE_SPEC: dict[str, Any] = {
    "type": "function",
    "name": "update_goal",
    "description": (
        "Ends the work on the thread's goal. `complete`: the objective is reached and you have checked that "
        "nothing of it is left. `blocked`: you cannot go on without something that only the user can give. "
        "Not because of the budget, and not because it is time to report."
    ),
    "strict": False,
    "parameters": {
        "type": "object",
        "properties": {"status": {"type": "string", "enum": ["complete", "blocked"]}},
        "required": ["status"],
        "additionalProperties": False,
    },
}


class _Arguments(BaseModel):
    model_config = ConfigDict(defer_build=True)
    status: Literal["complete", "blocked"]


class GetGoal:
    """The tool ``get_goal``."""

    name = "get_goal"

    def spec(self) -> dict[str, Any]:
        """The specification for the model."""
        return GET_SPEC

    async def run(self, call: ToolCall, turn: ToolTurn) -> ToolResult:
        """Ask the actor."""
        answer = await turn.port.ask(GoalReport())
        return _told(answer)


class UpdateGoal:
    """The tool ``update_goal``."""

    name = "update_goal"

    def spec(self) -> dict[str, Any]:
        """The specification for the model."""
        return UPDATE_SPEC

    async def run(self, call: ToolCall, turn: ToolTurn) -> ToolResult:
        """Tell the actor."""
        try:
            arguments = read_as(_Arguments, call.arguments)
        except BadArguments as problem:
            return ToolResult(unusable(problem))
        answer = await turn.port.ask(GoalReport(arguments.status))
        return _told(answer)


def _told(answer: str | ApprovalFailed) -> ToolResult:
    return ToolResult(answer.message if isinstance(answer, ApprovalFailed) else answer)
