"""The tool ``request_user_input``: the model asks the user, who chooses or says something."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from agent.events import ApprovalFailed, UserQuestions
from agent.tools.call_arguments import BadArguments, read_as, unusable
from agent.tools.toolset import ToolCall, ToolResult, ToolTurn
from protocol.base import encode
from protocol.server_requests import UserInputOption, UserInputQuestion

MOST_QUESTIONS = 20
"""More would not be a question but a form."""

_OPTION: dict[str, Any] = {
    "type": "object",
    "properties": {
        "label": {"type": "string", "description": "One to five words that the user sees."},
        "description": {"type": "string", "description": "One sentence on what follows from it."},
    },
    "required": ["label", "description"],
    "additionalProperties": False,
}
_QUESTION: dict[str, Any] = {
    "type": "object",
    "properties": {
        "id": {"type": "string", "description": "A snake_case name; the answer comes under it."},
        "header": {"type": "string", "description": "A title of at most 12 characters."},
        "question": {"type": "string", "description": "One sentence."},
        "options": {
            "type": "array",
            "items": _OPTION,
            "description": "Two or three that exclude each other, your own choice first.",
        },
    },
    "required": ["id", "header", "question", "options"],
    "additionalProperties": False,
}
SPEC: dict[str, Any] = {
    "type": "function",
    "name": "request_user_input",
    "description": (
        "Asks the user one to three short questions and waits for the answers. Only for what you can neither "
        "find out nor decide yourself: the user may be away. The user can always answer in words of his own."
    ),
    "strict": False,
    "parameters": {
        "type": "object",
        "properties": {"questions": {"type": "array", "items": _QUESTION}},
        "required": ["questions"],
        "additionalProperties": False,
    },
}


class _Option(BaseModel):
    label: str
    description: str = ""


class _Question(BaseModel):
    id: str
    header: str
    question: str
    options: list[_Option] | None = None


class _Arguments(BaseModel):
    model_config = ConfigDict(defer_build=True)
    questions: list[_Question] = Field(min_length=1, max_length=MOST_QUESTIONS)


class RequestUserInput:
    """See the module docstring."""

    name = "request_user_input"

    def spec(self) -> dict[str, Any]:
        """The specification for the model."""
        return SPEC

    async def run(self, call: ToolCall, turn: ToolTurn) -> ToolResult:
        """Ask, wait, and tell the model what came."""
        try:
            questions = _read(call.arguments)
        except BadArguments as problem:
            return ToolResult(unusable(problem))
        answer = await turn.port.ask(UserQuestions(call.call_id, questions))
        if isinstance(answer, ApprovalFailed):
            return ToolResult(f"request_user_input failed: {answer.message}", ends_turn=answer.ends_turn)
        return ToolResult(encode(answer).decode())


def _read(text: str) -> list[UserInputQuestion]:
    """The questions of a call.

    Raises:
        BadArguments: they cannot be put, or not be told apart.
    """
    asked = read_as(_Arguments, text).questions
    ids = [each.id for each in asked]
    if len(set(ids)) < len(ids):
        raise BadArguments("`questions`: every question needs an id of its own")
    return [
        UserInputQuestion(
            id=each.id,
            header=each.header,
            question=each.question,
            options=None
            if not each.options
            else [UserInputOption(label=one.label, description=one.description) for one in each.options],
        )
        for each in asked
    ]
