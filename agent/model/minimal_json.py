"""The smallest JSON value that fits a JSON Schema, for the subset that output schemas use."""

from __future__ import annotations

import math
from typing import Any

_DEEPEST = 32
_MOST_VALUES = 10_000


def minimal_instance(schema: Any) -> Any:
    """A value for ``schema``: required members only, first choices, least numbers, shortest texts.

    What is recursive without an end, too much, or not covered by this subset, is null.
    """
    return _Builder(schema).instance(schema, 0)


class _Builder:
    """Builds values of one root schema; a schema can ask for more of them than fit into any memory."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._left = _MOST_VALUES

    def instance(self, schema: Any, depth: int) -> Any:
        self._left -= 1
        if not isinstance(schema, dict) or depth > _DEEPEST or self._left < 0:
            return None
        reference = schema.get("$ref")
        if isinstance(reference, str):
            return self.instance(_resolve(reference, self._root), depth + 1)
        for key in ("const", "default"):
            if key in schema:
                return schema[key]
        choices = schema.get("enum")
        if isinstance(choices, list) and choices:
            return choices[0]
        for key in ("anyOf", "oneOf", "allOf"):
            options = schema.get(key)
            if isinstance(options, list) and options:
                return self.instance(options[0], depth + 1)
        kind = schema.get("type")
        if isinstance(kind, list):
            kind = kind[0] if kind else None
        if kind == "object" or (kind is None and "properties" in schema):
            return self._object(schema, depth)
        if kind == "array":
            least = _number(schema.get("minItems"))
            return [self.instance(schema.get("items"), depth + 1) for _ in range(min(int(least), 100))]
        if kind == "string":
            return "x" * min(int(_number(schema.get("minLength"))), 1000)
        if kind in ("integer", "number"):
            return _least_number(schema)
        return False if kind == "boolean" else None

    def _object(self, schema: dict[str, Any], depth: int) -> dict[str, Any]:
        properties = schema.get("properties")
        required = schema.get("required")
        if not isinstance(properties, dict) or not isinstance(required, list):
            return {}
        return {
            name: self.instance(properties.get(name), depth + 1) for name in required if isinstance(name, str)
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
    """A number that is one; 0 for anything else, infinity included."""
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return value if good else 0


def _resolve(reference: str, root: Any) -> Any:
    found = root
    for part in reference.removeprefix("#").strip("/").split("/"):
        if part:
            found = found.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(found, dict) else None
    return found
