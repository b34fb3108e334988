"""The base of every wire type.

Wire names are camelCase, attributes are snake_case; one alias generator joins them. Models are built
lazily (``defer_build``) because start-up time is a feature and a connection uses few of them.
"""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel
from pydantic_core import to_json


class Wire(BaseModel):
    """A JSON object of the protocol. Unknown members are ignored, optional ones are sent as null."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_alias=True,
        validate_by_name=True,
        serialize_by_alias=True,
        extra="ignore",
        defer_build=True,
        protected_namespaces=(),
    )

    @classmethod
    def from_wire(cls, value: object) -> Self:
        """Read a decoded JSON value by its wire names, without coercion.

        Raises:
            pydantic.ValidationError: the value does not have this shape.
        """
        return cls.model_validate(value, strict=True, by_alias=True, by_name=False)

    def to_wire(self) -> dict[str, Any]:
        """The JSON object as plain Python values, under its wire names."""
        return self.model_dump(mode="json", by_alias=True)


def encode(value: object) -> bytes:
    """One JSON text, UTF-8, without a newline. Models inside are written under their wire names."""
    return to_json(value, by_alias=True)
