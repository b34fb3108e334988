"""Whether what a server sent fits a JSON schema of the protocol: our exported one, or the reference's.

The reference's is not ours to keep. ``codex app-server generate-json-schema`` writes it, ``make conformance``
has that done into ``.cache/schema``, and ``SPOOLD_REFERENCE_SCHEMA=DIR`` names another folder. Where there is
none, only ours is looked at.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import jsonschema
from jsonschema.protocols import Validator

from protocol.schema import bundle
from tests.support.traffic import Received
from transport.methods import METHODS

ROOT = Path(__file__).parents[2]
CACHED = ROOT / ".cache" / "schema"
MOST_PROBLEMS = 20


class WireSchema(Protocol):
    """One schema of the protocol."""

    name: str

    def validator(self, received: Received) -> Validator | None:
        """What checks this message; None when the schema knows nothing of its kind."""
        ...


class OwnSchema:
    """What ``spoold schema`` writes."""

    name = "spoold's own schema"

    def __init__(self) -> None:
        self._schema = bundle(METHODS.values(), experimental=True)

    def validator(self, received: Received) -> Validator | None:
        definitions = self._schema["$defs"]
        if received.kind == "error":
            return _validator(_ERROR, {})
        if received.kind == "result":
            shape = definitions["ClientResponses"]["properties"].get(received.method)
            return None if shape is None else _validator(_result(shape), {"$defs": definitions})
        union = definitions["ServerRequest" if received.kind == "request" else "ServerNotification"]
        for branch in union["oneOf"]:
            if branch["properties"]["method"]["const"] == received.method:
                shape = _with_emission(branch) if received.kind == "notification" else branch
                return _validator(shape, {"$defs": definitions})
        return None


_ERROR = {
    "type": "object",
    "properties": {
        "id": {"type": ["integer", "string", "null"]},
        "error": {
            "type": "object",
            "properties": {"code": {"type": "integer"}, "message": {"type": "string", "minLength": 1}},
            "required": ["code", "message"],
        },
    },
    "required": ["id", "error"],
    "additionalProperties": False,
}


def _result(shape: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"id": {"type": ["integer", "string"]}, "result": shape},
        "required": ["id", "result"],
        "additionalProperties": False,
    }


def _with_emission(branch: Mapping[str, Any]) -> dict[str, Any]:
    # The time of emission is of the frame, not of the notification, so the exported schema leaves it out.
    return {
        **branch,
        "properties": {**branch["properties"], "emittedAtMs": {"type": "integer"}},
        "required": [*branch["required"], "emittedAtMs"],
        "not": {"anyOf": [{"required": ["id"]}, {"required": ["jsonrpc"]}]},
    }


_ANSWERS = {
    "config/value/write": "ConfigWriteResponse",
    "config/batchWrite": "ConfigWriteResponse",
    "account/logout": "LogoutAccountResponse",
    "account/rateLimits/read": "GetAccountRateLimitsResponse",
    "account/gatewayOAuth/read": "GatewayOAuthReadResponse",
    "account/usage/read": "GetAccountTokenUsageResponse",
    "configRequirements/read": "ConfigRequirementsReadResponse",
}
"""Where the name of an answer does not follow from the name of its params."""


class ReferenceSchema:
    """What the reference server writes of itself."""

    name = "the reference's schema"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def validator(self, received: Received) -> Validator | None:
        if received.kind == "error":
            # A message without a readable id is never answered by the reference, so it has no shape for it.
            unnumbered = received.message.get("id") is None
            return None if unnumbered else _validator(self._load("JSONRPCError.json"), {})
        if received.kind == "result":
            file = self._answer_file(received.method)
            if file is None:
                return None
            shape = dict(self._load(file))
            definitions = shape.pop("definitions", {})
            return _validator(_result(shape), {"definitions": definitions})
        union = self._load("ServerRequest.json" if received.kind == "request" else "ServerNotification.json")
        for branch in union["oneOf"]:
            if branch["properties"]["method"]["enum"] == [received.method]:
                return _validator(branch, {"definitions": union["definitions"]})
        return None

    def _answer_file(self, method: str | None) -> str | None:
        for branch in self._load("ClientRequest.json")["oneOf"]:
            if branch["properties"]["method"]["enum"] == [method]:
                params = branch["properties"].get("params", {}).get("$ref", "").rpartition("/")[2]
                name = _ANSWERS.get(method or "") or params.removesuffix("Params") + "Response"
                found = [
                    place for place in ("v2", "v1", ".") if (self._folder / place / f"{name}.json").exists()
                ]
                return f"{found[0]}/{name}.json" if found else None
        return None

    def _load(self, name: str) -> dict[str, Any]:
        return _loaded(self._folder / name)


@cache
def _loaded(file: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(file.read_bytes())
    return loaded


def _validator(shape: Mapping[str, Any], definitions: Mapping[str, Any]) -> Validator:
    return jsonschema.Draft202012Validator({**shape, **definitions})


@cache
def own_schema() -> OwnSchema:
    """Ours, made once."""
    return OwnSchema()


def reference_schema() -> ReferenceSchema | None:
    """The reference's, if it is there."""
    folder = Path(os.environ.get("SPOOLD_REFERENCE_SCHEMA") or CACHED)
    return ReferenceSchema(folder) if (folder / "ServerNotification.json").exists() else None


REFERENCE_LACKS = frozenset({"thread/rollback"})
"""Methods and notifications that the reference's schema does not have."""


def of_the_reference(received: Received) -> bool:
    """Whether the reference's schema can hold it: errors and our own shapes it does not know."""
    if received.kind == "error" or received.method in REFERENCE_LACKS:
        return False
    result = received.message.get("result")
    return not (isinstance(result, dict) and "queuedTurn" in result)


def problems(traffic: Iterable[Received], schema: WireSchema) -> list[str]:
    """What does not fit, one line each; messages that differ only in what never matters count once."""
    found: list[str] = []
    checked: set[str] = set()
    for received in traffic:
        mark = _mark(received)
        if mark in checked:
            continue
        checked.add(mark)
        found += _problems_of(received, schema)
        if len(found) >= MOST_PROBLEMS:
            return [*found[:MOST_PROBLEMS], "... and perhaps more"]
    return found


def _problems_of(received: Received, schema: WireSchema) -> list[str]:
    if received.kind == "result" and received.method is None:
        return [f"a result that answers nothing: {received.message}"]
    if isinstance(schema, ReferenceSchema) and not of_the_reference(received):
        return []
    validator = schema.validator(received)
    if validator is None:
        return [f"{received}: {schema.name} does not have it"]
    errors = sorted(validator.iter_errors(received.message), key=lambda error: error.json_path)
    return [_line(received, schema, error) for error in errors]


def _line(received: Received, schema: WireSchema, error: jsonschema.ValidationError) -> str:
    while error.context:
        # Of the branches of a union, the one that fails deepest is the one that was meant.
        error = max(error.context, key=lambda inner: len(inner.absolute_path))
    value = json.dumps(error.instance)[:200]
    return f"{received}: {error.json_path}: {error.message[:200]} ({schema.name}; the value: {value})"


def _mark(received: Received) -> str:
    message = {key: value for key, value in received.message.items() if key not in ("emittedAtMs", "id")}
    params = message.get("params")
    if isinstance(params, dict):
        message["params"] = {
            key: type(value).__name__ if key in ("delta", "seq") else value for key, value in params.items()
        }
    return json.dumps([received.kind, received.method, message])
