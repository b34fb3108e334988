"""Writes ``docs/protocol.md`` from the tables that the daemon runs on: ``python -m spoold.protocol_page``.

The words about transport and errors are here; every name, type and stability comes from the tables. A test
fails when the page is not what this module makes of them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from protocol.notifications import SERVER_NOTIFICATIONS
from protocol.schema import bundle
from protocol.server_requests import SERVER_REQUESTS
from transport.method import Method
from transport.methods import METHODS

FILE = Path("docs", "protocol.md")

_INTRODUCTION = """\
# Protocol

<!-- Made by `python -m spoold.protocol_page` from the daemon's own tables. Do not edit. -->

spoold speaks the app-server protocol, version 2. This page lists what it offers; `spoold schema --out DIR`
writes the same as JSON Schema. Where it differs from the reference server on purpose:
[deviations.md](deviations.md).

## Messages

A message is one JSON object: one line of UTF-8 on the standard streams, one text frame on a websocket (over
TCP or a unix socket). There is no `jsonrpc` member; one that comes is ignored, as every unknown member is.

| message | members |
| --- | --- |
| request, of either side | `id`, `method`, `params` |
| answer | `id`, `result` |
| refusal | `id`, `error` with `code`, `message` and sometimes `data` |
| notification of a client | `method`, `params` |
| notification of the server | `method`, `params`, `emittedAtMs` (Unix milliseconds) |

An `id` is an integer or a string and comes back with its type. Those of the server start at 0 and count on
their own. What the server has no value for, it sends as `null`. A client may leave out what is not required,
and `params` as a whole where nothing in it is.

A connection begins with `initialize`; any other request before it is refused. The notification `initialized`
may follow, and need not. `capabilities.experimentalApi` opens what is marked *experimental* below;
`capabilities.optOutNotificationMethods` names notifications that this connection does not want.

Answers of one connection may overtake each other. The events of a turn come after the answer to `turn/start`,
and only to the subscribers of its thread: who starts or resumes a thread is one, until `thread/unsubscribe`.

| code | when |
| --- | --- |
| -32700 | the message could not be read; `id` is null |
| -32600 | nearly everything a client gets wrong: an unknown method or id, a wrong type, a bad state |
| -32601 | a method that is known and not offered |
| -32602 | input that is too large, and some filters of lists |
| -32603 | a fault of the daemon; it is in its log |
| -32001 | a bound is reached: `Server overloaded; retry later.` |

A model or a tool that fails is no error of a request: the turn ends as `failed`, and says why.
"""


def page() -> str:
    """The whole page."""
    schema = bundle(METHODS.values(), experimental=True)["$defs"]
    return "\n".join([_INTRODUCTION, *_lines(schema)])


def _lines(schema: Mapping[str, Any]) -> Iterator[str]:
    shapes = _Shapes(schema)
    offered = [row for row in METHODS.values() if row.offered]
    yield "## Methods\n"
    yield from _table(
        ("method", "concerns", "stability"),
        ((f"[`{row.name}`](#{_anchor(row.name)})", _scope(row), row.stability) for row in offered),
    )
    for row in offered:
        yield from _method(row, shapes)
    yield "## Notifications\n"
    yield "Broadcast ones go to every initialised connection, the others to the subscribers of the thread.\n"
    notes = shapes.of_union("ServerNotification")
    yield from _table(
        ("notification", "goes to", "params"),
        (
            (f"`{name}`", "everyone" if row.broadcast else "subscribers", shapes.type_of(notes[name]))
            for name, row in SERVER_NOTIFICATIONS.items()
        ),
    )
    yield "## Requests of the server\n"
    yield "They go to every subscriber of the thread. The first answer wins; an error refuses.\n"
    questions, answers = shapes.of_union("ServerRequest"), schema["ServerResponses"]["properties"]
    yield from _table(
        ("request", "params", "answer"),
        (
            (f"`{name}`", shapes.type_of(questions[name]), shapes.type_of(answers[name]))
            for name in SERVER_REQUESTS
        ),
    )
    yield "## Objects\n"
    yield "Members marked with * are required where a client sends the object.\n"
    for name in shapes.in_order():
        yield from _object(name, shapes)
    yield "## Known and not offered\n"
    yield "These names of the reference are refused with one clear error (-32601), after the same checks of"
    yield "handshake and capability as any other method.\n"
    for stability in ("stable", "experimental"):
        names = [
            f"`{row.name}`" for row in METHODS.values() if not row.offered and row.stability == stability
        ]
        yield f"{stability.capitalize()}: {', '.join(names)}.\n"


def _method(row: Method, shapes: _Shapes) -> Iterator[str]:
    params = shapes.schema_of(shapes.of_union("ClientRequest")[row.name])
    yield f"### {row.name}\n"
    if params.get("properties"):
        gated = frozenset(row.gated_fields)
        yield from _members(params, shapes, gated)
    else:
        yield "No parameters.\n"
    result = shapes.schema["ClientResponses"]["properties"][row.name]
    members = shapes.schema_of(result).get("properties")
    yield f"Result: {shapes.type_of(result) if members else '`{}`'}.\n"


def _object(name: str, shapes: _Shapes) -> Iterator[str]:
    shape = shapes.schema[name]
    yield f"### {name}\n"
    if about := _about(shape):
        yield f"{about}\n"
    if shape.get("properties"):
        yield from _members(shape, shapes)
    elif "type" not in shape or shape["type"] != "object":
        yield f"{shapes.type_of(shape)}\n"
    else:
        yield "No members.\n"


def _members(shape: Mapping[str, Any], shapes: _Shapes, gated: frozenset[str] = frozenset()) -> Iterator[str]:
    required = shape.get("required", ())
    rows = []
    for name in sorted(shape["properties"], key=lambda name: name not in required):
        member = shape["properties"][name]
        notes = [_default(member), _about(member), "*experimental*" if name in gated else ""]
        mark = "*" if name in required else ""
        rows.append((f"`{name}`{mark}", shapes.type_of(member), "; ".join(note for note in notes if note)))
    yield from _table(("member", "type", ""), rows)


def _default(member: Mapping[str, Any]) -> str:
    value = member.get("default")
    if value is None or value in ({}, []):
        return ""
    return f"default {_literal(value)}"


def _about(shape: Mapping[str, Any]) -> str:
    # Docstrings are reStructuredText; the first paragraph says what the thing is.
    first = str(shape.get("description", "")).partition("\n\n")[0]
    return " ".join(first.replace("``", "`").split()).replace("|", "\\|")


def _scope(row: Method) -> str:
    return {"connection": "the connection", "daemon": "the daemon", "thread": "one thread"}[row.scope]


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"| {' | '.join('---' for _ in head)} |"
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""


def _anchor(heading: str) -> str:
    return "".join(letter for letter in heading.lower() if letter.isalnum() or letter in "-_")


def _literal(value: Any) -> str:
    text = f'"{value}"' if isinstance(value, str) else str(value).lower()
    return f"`{text}`"


class _Shapes:
    """Types as the page writes them; remembers which objects it has named."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self.schema = schema
        self._named: dict[str, None] = {}

    def of_union(self, name: str) -> dict[str, Any]:
        """The params of each method of a union."""
        return {
            branch["properties"]["method"]["const"]: branch["properties"]["params"]
            for branch in self.schema[name]["oneOf"]
        }

    def schema_of(self, shape: Mapping[str, Any]) -> Mapping[str, Any]:
        """What a reference refers to."""
        name = str(shape.get("$ref", "")).rpartition("/")[2]
        found: Mapping[str, Any] = self.schema[name] if name else shape
        return found

    def in_order(self) -> Iterator[str]:
        """The named objects by their names; those that their members name, too."""
        for name in list(self._named):
            self._name_inner(self.schema[name])
        yield from sorted(self._named)

    def type_of(self, shape: Mapping[str, Any]) -> str:
        """A type in one line."""
        if "$ref" in shape:
            name = shape["$ref"].rpartition("/")[2]
            self._named.setdefault(name)
            return f"[{name}](#{_anchor(name)})"
        for union in ("anyOf", "oneOf"):
            if union in shape:
                return " \\| ".join(dict.fromkeys(self.type_of(branch) for branch in shape[union]))
        if "const" in shape:
            return _literal(shape["const"])
        if "enum" in shape:
            return " \\| ".join(_literal(value) for value in shape["enum"])
        return self._plain(shape)

    def _plain(self, shape: Mapping[str, Any]) -> str:
        kind = shape.get("type", "any value")
        if kind == "array":
            inner = self.type_of(shape.get("items", {}))
            return f"list of ({inner})" if "\\|" in inner else f"list of {inner}"
        if kind == "object" and isinstance(values := shape.get("additionalProperties"), dict):
            return f"object of {self.type_of(values)}"
        return str(kind)

    def _name_inner(self, shape: Any) -> None:
        if isinstance(shape, list):
            for inner in shape:
                self._name_inner(inner)
        elif isinstance(shape, dict):
            name = str(shape.get("$ref", "")).rpartition("/")[2]
            if name and name not in self._named:
                self._named[name] = None
                self._name_inner(self.schema[name])
            for inner in shape.values():
                self._name_inner(inner)


def main() -> None:
    """Write the page below the current folder."""
    try:
        FILE.write_text(page(), encoding="utf-8")
    except OSError as error:
        sys.exit(f"Error: {FILE} cannot be written ({error.strerror}); run this in the project's folder")
    print(FILE)


if __name__ == "__main__":
    main()
