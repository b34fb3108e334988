"""The smallest JSON value that fits a JSON Schema, for the subset that output schemas use."""

from __future__ import annotations

from typing import Any

_DEEPEST = 32


def minimal_instance(schema: Any) -> Any:
    """A value for ``schema``: required members only, first choices, least numbers, shortest texts.

    A schema that is recursive without an end, or that this subset does not cover, gives null.
    """
    return _instance(schema, schema, 0)


def _instance(schema: Any, root: Any, depth: int) -> Any:
    if not isinstance(schema, dict) or depth > _DEEPEST:
        return None
    reference = schema.get("$ref")
    if isinstance(reference, str):
        return _instance(_resolve(reference, root), root, depth + 1)
    for key in ("const", "default"):
        if key in schema:
            return schema[key]
    choices = schema.get("enum")
    if isinstance(choices, list) and choices:
        return choices[0]
    for key in ("anyOf", "oneOf", "allOf"):
        options = schema.get(key)
        if isinstance(options, list) and options:
            return _instance(options[0], root, depth + 1)
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = kind[0] if kind else None
    if kind == "object" or (kind is None and "properties" in schema):
        return _object(schema, root, depth)
    if kind == "array":
        least = _number(schema.get("minItems"))
        return [_instance(schema.get("items"), root, depth + 1) for _ in range(min(int(least), 100))]
    if kind == "string":
        return "x" * min(int(_number(schema.get("minLength"))), 1000)
    if kind in ("integer", "number"):
        return _least_number(schema)
    return False if kind == "boolean" else None


def _object(schema: dict[str, Any], root: Any, depth: int) -> dict[str, Any]:
    properties = schema.get("properties")
    required = schema.get("required")
    if not isinstance(properties, dict) or not isinstance(required, list):
        return {}
    return {
        name: _instance(properties.get(name), root, depth + 1) for name in required if isinstance(name, str)
    }


def _least_number(schema: dict[str, Any]) -> int | float:
    if "minimum" in schema:
        return _number(schema["minimum"])
    if "exclusiveMinimum" in schema:
        return _number(schema["exclusiveMinimum"]) + 1
    most = schema.get("maximum", schema.get("exclusiveMaximum"))
    if most is not None and _number(most) <= 0:
        return _number(most) - (1 if "maximum" not in schema else 0)
    return 0


def _number(value: Any) -> int | float:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else 0


def _resolve(reference: str, root: Any) -> Any:
    found = root
    for part in reference.removeprefix("#").strip("/").split("/"):
        if part:
            found = found.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(found, dict) else None
    return found
