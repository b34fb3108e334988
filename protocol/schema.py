"""The JSON Schema of the protocol, derived from the tables that the daemon itself runs on.

One bundle, every reference resolvable inside it. ``ClientRequest``, ``ServerRequest`` and
``ServerNotification`` are unions told apart by ``method``; the unions inside (items, sandbox policies, ...)
by ``type``. ``ClientResponses`` and ``ServerResponses`` map a method to the shape of its result.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, models_json_schema
from pydantic_core import core_schema, to_json

from protocol.base import Wire
from protocol.notifications import SERVER_NOTIFICATIONS
from protocol.server_requests import SERVER_REQUESTS

FILE_NAME = "app_server_protocol.schemas.json"
_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_REQUEST_ID = {"description": "Echoed with its type.", "anyOf": [{"type": "string"}, {"type": "integer"}]}


class MethodRow(Protocol):
    """What the schema needs to know of a method; rows of the transport's table have it."""

    @property
    def name(self) -> str:
        """As on the wire."""
        ...

    @property
    def params(self) -> type[Wire]:
        """The model of its parameters."""
        ...

    @property
    def result(self) -> type[Wire]:
        """The model of its result."""
        ...

    @property
    def stability(self) -> str:
        """``stable`` or ``experimental``."""
        ...

    @property
    def gated_fields(self) -> tuple[str, ...]:
        """Wire names of parameters that are experimental by themselves."""
        ...

    @property
    def offered(self) -> bool:
        """Whether spoold does more than refuse it."""
        ...


class _Untitled(GenerateJsonSchema):
    """Without the titles that only repeat the names of fields."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def model_schema(self, schema: core_schema.ModelSchema) -> dict[str, Any]:
        shape = super().model_schema(schema)
        shape.pop("title", None)
        return shape


def bundle(methods: Iterable[MethodRow], *, experimental: bool) -> dict[str, Any]:
    """The whole schema as one JSON value.

    Args:
        methods: the method table. Methods that are not offered are left out.
        experimental: with the methods and parameters that need the ``experimentalApi`` capability.
    """
    rows = [row for row in methods if row.offered and (experimental or row.stability == "stable")]
    models: dict[type[Wire], None] = {}
    for row in rows:
        models |= {row.params: None, row.result: None}
    for note in SERVER_NOTIFICATIONS.values():
        models[note.params] = None
    for request in SERVER_REQUESTS.values():
        models |= {request.params: None, request.result: None}
    mode: JsonSchemaMode = "validation"
    references, shapes = models_json_schema(
        [(model, mode) for model in models], schema_generator=_Untitled, ref_template="#/$defs/{model}"
    )
    shape_of = {model: references[model, mode] for model in models}
    definitions: dict[str, Any] = shapes["$defs"]
    if not experimental:
        for row in rows:
            _without(row.gated_fields, definitions, shape_of[row.params])
    definitions |= {
        "RequestId": _REQUEST_ID,
        "ClientRequest": _union({row.name: shape_of[row.params] for row in rows}, with_id=True),
        "ClientResponses": _by_method({row.name: shape_of[row.result] for row in rows}),
        "ServerNotification": _union(
            {name: shape_of[note.params] for name, note in SERVER_NOTIFICATIONS.items()}, with_id=False
        ),
        "ServerRequest": _union(
            {name: shape_of[request.params] for name, request in SERVER_REQUESTS.items()}, with_id=True
        ),
        "ServerResponses": _by_method(
            {name: shape_of[request.result] for name, request in SERVER_REQUESTS.items()}
        ),
    }
    return {"$schema": _DIALECT, "title": "App-server protocol", "$defs": dict(sorted(definitions.items()))}


def write_bundle(folder: Path, methods: Iterable[MethodRow], *, experimental: bool) -> Path:
    """Write the bundle into a folder, which is made when it is missing.

    Returns:
        The file.

    Raises:
        OSError: it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / FILE_NAME
    file.write_bytes(to_json(bundle(methods, experimental=experimental), indent=2) + b"\n")
    return file


def _without(fields: tuple[str, ...], definitions: dict[str, Any], reference: Mapping[str, Any]) -> None:
    properties = definitions[reference["$ref"].rpartition("/")[2]].get("properties", {})
    for field in fields:
        properties.pop(field, None)


def _union(params: Mapping[str, Any], *, with_id: bool) -> dict[str, Any]:
    first = {"id": {"$ref": "#/$defs/RequestId"}} if with_id else {}
    return {
        "discriminator": {"propertyName": "method"},
        "oneOf": [
            {
                "type": "object",
                "properties": {**first, "method": {"const": name}, "params": shape},
                "required": [*first, "method", "params"],
            }
            for name, shape in params.items()
        ],
    }


def _by_method(results: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": dict(results)}
