"""What is wrong with a client's parameters, in the words that clients of this protocol know.

Pydantic reports every error of a value, with its own wording and with the branches of unions spelled out
in the location. Clients know one error at a time in serde's wording (``missing field `threadId```,
``unknown variant `x`, expected one of `a`, `b```). ``explain`` picks the error that a reader of the JSON
text would meet first (a wrong value before a missing member) and says where it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

_VARIANT_ORDER = ("untrusted", "on-request", "granular", "never")

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
    details = error.errors(include_url=False)
    first = next((detail for detail in details if detail["type"] != "missing"), details[0])
    place, branches = _locate(first["loc"], value)
    siblings = [detail for detail in details if detail["input"] is first["input"]] if branches else [first]
    text = _union_text(siblings) if len(siblings) > 1 else None
    if text is None and branches:
        # The value took one branch of the union and is wrong inside it: that error is the one to report.
        deeper = max(details, key=lambda detail: len(detail["loc"]))
        if len(deeper["loc"]) > len(first["loc"]):
            first = deeper
            place, _ = _locate(first["loc"], value)
    if text is None:
        text = _text(first)
    if not place or text == f"missing field `{place}`":
        return text
    return f"{text} at `{place}`"


def _locate(loc: tuple[int | str, ...], value: object) -> tuple[str, bool]:
    """Where ``loc`` points to in the JSON value, and whether it names branches of unions on the way."""
    place, branches = "", False
    for position, part in enumerate(loc):
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, Sequence) and isinstance(part, int) and not isinstance(value, str):
            place += f"[{part}]"
            value = value[part] if part < len(value) else None
            continue
        elif position < len(loc) - 1 or not isinstance(value, Mapping):
            branches = True
            continue
        place += f".{part}" if place else str(part)
    return place, branches


def _union_text(details: list[ErrorDetails]) -> str | None:
    """The error of a value that fits no branch of a union, or None where it fits one partly."""
    variants: list[str] = []
    kinds: list[str] = []
    for detail in details:
        if detail["type"] == "literal_error":
            variants += _listed(detail["ctx"]["expected"])
        elif detail["type"] == "model_type":
            variants.append(TAGGED_BRANCHES.get(detail["ctx"]["class_name"], detail["ctx"]["class_name"]))
        elif detail["type"] in _EXPECTED:
            kinds.append(_EXPECTED[detail["type"]])
        elif detail["type"] == "missing" and len(detail["loc"]) > 1:
            variants.append(str(detail["loc"][-1]))
    value = details[0]["input"]
    if variants:
        if set(variants) == set(_VARIANT_ORDER):
            variants = list(_VARIANT_ORDER)
        if isinstance(value, Mapping) and len(value) == 1:
            value = next(iter(value))
        if isinstance(value, str):
            return _unknown_variant(value, variants)
        return f"invalid type: {_shown(value)}, expected {_choice(variants)}"
    if len(kinds) > 1:
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
            return f"integer `{str(value)[:MAX_QUOTED_CHARS]}`"
        case float():
            return f"floating point `{value}`"
        case str():
            cut = value if len(value) <= MAX_QUOTED_CHARS else value[:MAX_QUOTED_CHARS] + "..."
            return f"string {to_json(cut).decode()}"
        case list():
            return "sequence"
        case _:
            return "map"
