"""Reading the JSON arguments of a tool call."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, from_json

M = TypeVar("M", bound=BaseModel)


class BadArguments(Exception):
    """The model's arguments cannot be used; the text says which and why."""


def unusable(problem: BadArguments) -> str:
    """What the model is told about arguments that cannot be used."""
    return f"failed to parse function arguments: {problem}"


def read_object(text: str) -> dict[str, Any]:
    """The JSON object in ``text``.

    Raises:
        BadArguments: it is none.
    """
    try:
        value = from_json(text)
    except ValueError as error:
        raise BadArguments(str(error)) from None
    if not isinstance(value, dict):
        raise BadArguments(f"invalid type: {_kind(value)}, expected an object")
    return value


def read_as(model: type[M], text: str) -> M:
    """The JSON object in ``text``, checked.

    Raises:
        BadArguments: it is no JSON object, or a member is missing or wrong.
    """
    try:
        return model.model_validate(read_object(text))
    except ValidationError as error:
        raise BadArguments(_first_problem(error.errors(include_url=False)[0])) from None


def _first_problem(error: ErrorDetails) -> str:
    member = ".".join(str(part) for part in error["loc"])
    if error["type"] == "missing":
        return f"missing field `{member}`"
    return f"`{member}`: {error['msg']}"


def _kind(value: object) -> str:
    kinds = {list: "array", str: "string", bool: "boolean", int: "integer", float: "number"}
    return kinds.get(type(value), "null")
