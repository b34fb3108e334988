"""What is wrong with a client's parameters, in the words that clients of this protocol know.

Pydantic reports every error of a value, with its own wording and with the branches of unions spelled out
in the location. Clients know one error at a time in serde's wording (``missing field `threadId```,
``unknown variant `x`, expected one of `a`, `b```). ``explain`` picks the error that a reader of the JSON
text would meet first (a wrong value before a missing member) and says where it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails, to_json

from protocol.base import Wire
from protocol.errors import InvalidRequest

W = TypeVar("W", bound=Wire)

MAX_QUOTED_CHARS = 120
"""A wrong string is quoted up to this length: the message must stay readable."""

TAGGED_BRANCHES = {"GranularPolicy": "granular", "AcceptWithAmendment": "acceptWithExecpolicyAmendment"}
"""Union branches that are an object with one member: the member's name is the variant's name."""

_APPROVAL_ORDER = ("untrusted", "on-request", "granular", "never")
"""Approval policies in the order clients know; the union has the object variant last."""

_EXPECTED = {
    "string_type": "a string",
    "int_type": "u32",
    "float_type": "a number",
    "bool_type": "a boolean",
    "list_type": "a sequence",
    "dict_type": "a map",
    "model_attributes_type": "a map",
    "none_required": "null",
}


def parse_params(model: type[W], value: object) -> W:
    """Read the parameters of a request.

    Raises:
        InvalidRequest: they do not have the model's shape.
    """
    if isinstance(value, list):
        count = len(model.model_fields)
        raise InvalidRequest(
            f"Invalid request: invalid length {len(value)}, expected struct {model.__name__} with "
            f"{count} element{'' if count == 1 else 's'}"
        )
    try:
        return model.from_wire(value)
    except ValidationError as error:
        raise InvalidRequest(f"Invalid request: {explain(error, value)}") from None


def explain(error: ValidationError, value: object) -> str:
    """One sentence about the first thing that is wrong with ``value``, without a prefix."""
    found = [_Found.of(detail, value) for detail in error.errors(include_url=False)]
    first = next((one for one in found if one.detail["type"] != "missing"), found[0])
    text = None
    if first.branch is not None:
        union = [one for one in found if one.path[: len(first.union)] == first.union]
        if len({one.branch for one in union}) > 1:
            # A value that is wrong *inside* one branch of the union has chosen it: that is the error.
            inside = [one for one in union if len(one.path) > len(first.union)]
            if inside:
                first = inside[0]
            else:
                text = _union_text([one.detail for one in union])
    text = text or _text(first.detail)
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first.path).lstrip(".")
    return f"{text} at `{place}`" if place else text


@dataclass(frozen=True, slots=True)
class _Found:
    """One of pydantic's errors, with its location taken apart.

    Attributes:
        path: members and indices that lead to the wrong value (for a missing member: to its owner).
        branch: the first part of the location that is no member but a branch of a union, or None.
        union: the part of ``path`` before that branch.
    """

    detail: ErrorDetails
    path: tuple[int | str, ...]
    branch: int | str | None
    union: tuple[int | str, ...]

    @classmethod
    def of(cls, detail: ErrorDetails, value: object) -> _Found:
        path: tuple[int | str, ...] = ()
        branch, union = None, path
        loc = detail["loc"][:-1] if detail["type"] == "missing" else detail["loc"]
        for part in loc:
            is_index = isinstance(value, list) and isinstance(part, int) and part < len(value)
            if is_index or (isinstance(value, dict) and part in value):
                value = value[part]  # type: ignore[index]
                path += (part,)
            elif branch is None:
                branch, union = part, path
        return cls(detail, path, branch, union)


def _union_text(details: list[ErrorDetails]) -> str | None:
    """The error of a value that fits no branch of a union."""
    variants: list[str] = []
    kinds: list[str] = []
    for detail in details:
        if detail["type"] == "literal_error":
            variants += _listed(detail["ctx"]["expected"])
        elif detail["type"] == "model_type":
            variants.append(TAGGED_BRANCHES.get(detail["ctx"]["class_name"], detail["ctx"]["class_name"]))
        elif detail["type"] == "missing":
            variants.append(str(detail["loc"][-1]))
        elif detail["type"] in _EXPECTED:
            kinds.append(_EXPECTED[detail["type"]])
    value = details[0]["input"]
    if variants:
        if set(variants) == set(_APPROVAL_ORDER):
            variants = list(_APPROVAL_ORDER)
        if isinstance(value, dict) and len(value) == 1:
            value = next(iter(value))
        if isinstance(value, str):
            return _unknown_variant(value, variants)
        return f"invalid type: {_shown(value)}, expected {_choice(variants)}"
    if kinds:
        return f"invalid type: {_shown(value)}, expected {' or '.join(dict.fromkeys(kinds))}"
    return None


def _text(detail: ErrorDetails) -> str:
    kind, context, value = detail["type"], detail.get("ctx", {}), detail["input"]
    match kind:
        case "missing":
            return f"missing field `{detail['loc'][-1]}`"
        case "union_tag_not_found":
            return f"missing field `{context['discriminator'].strip(chr(39))}`"
        case "union_tag_invalid":
            return _unknown_variant(context["tag"], _listed(context["expected_tags"]))
        case "literal_error":
            variants = _listed(context["expected"])
            if isinstance(value, str):
                return _unknown_variant(value, variants)
            return f"invalid type: {_shown(value)}, expected {_choice(variants)}"
        case "greater_than_equal" | "less_than_equal" | "int_parsing_size":
            return f"invalid value: {_shown(value)}, expected u32"
        case "model_type" | "dataclass_type":
            return f"invalid type: {_shown(value)}, expected struct {context['class_name']}"
    if kind in _EXPECTED:
        return f"invalid type: {_shown(value)}, expected {_EXPECTED[kind]}"
    return f"invalid value: {_shown(value)}, {detail['msg'][:1].lower()}{detail['msg'][1:]}"


def _unknown_variant(value: str, variants: list[str]) -> str:
    return f"unknown variant `{value[:MAX_QUOTED_CHARS]}`, expected {_choice(variants)}"


def _choice(variants: list[str]) -> str:
    quoted = [f"`{variant}`" for variant in variants]
    match len(quoted):
        case 1:
            return quoted[0]
        case 2:
            return f"{quoted[0]} or {quoted[1]}"
        case _:
            return f"one of {', '.join(quoted)}"


def _listed(expected: str) -> list[str]:
    """The names in pydantic's ``'a', 'b' or 'c'``."""
    return [part.strip().strip("'") for part in expected.replace(" or ", ", ").split(",")]


def _shown(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return f"boolean `{str(value).lower()}`"
        case int():
            # Python refuses to print integers of thousands of digits.
            return f"integer `{value}`" if value.bit_length() <= 128 else "huge integer"
        case float():
            return f"floating point `{value}`"
        case str():
            cut = value if len(value) <= MAX_QUOTED_CHARS else value[:MAX_QUOTED_CHARS] + "..."
            return f"string {to_json(cut).decode()}"
        case list():
            return "sequence"
        case _:
            return "map"
