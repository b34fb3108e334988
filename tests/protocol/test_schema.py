"""The exported schema: everything it refers to is in it, unions are told apart, gates are respected."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from protocol.base import Wire
from protocol.schema import FILE_NAME, bundle, write_bundle
from protocol.thread_methods import Empty, ThreadStartParams, ThreadStartResult


@dataclass(frozen=True)
class Row:
    name: str
    params: type[Wire]
    result: type[Wire]
    stability: str = "stable"
    gated_fields: tuple[str, ...] = ()
    offered: bool = True


ROWS = [
    Row("thread/start", ThreadStartParams, ThreadStartResult, gated_fields=("historyMode",)),
    Row("thread/queue/add", Empty, Empty, stability="experimental"),
    Row("thread/realtime/start", Empty, Empty, offered=False),
]


def methods_of(schema: dict[str, Any]) -> list[str]:
    return [branch["properties"]["method"]["const"] for branch in schema["$defs"]["ClientRequest"]["oneOf"]]


@pytest.mark.parametrize("experimental", [True, False])
def test_the_bundle_is_a_valid_schema_whose_references_all_resolve(experimental: bool) -> None:
    schema = bundle(ROWS, experimental=experimental)
    jsonschema.Draft202012Validator.check_schema(schema)
    references = set(re.findall(r'"\$ref": "#/\$defs/([^"]+)"', json.dumps(schema)))
    assert references <= set(schema["$defs"])


def test_names_are_clean_identifiers() -> None:
    names = bundle(ROWS, experimental=True)["$defs"]
    assert [name for name in names if not re.fullmatch(r"[A-Z][A-Za-z0-9]*", name)] == []


def test_every_union_of_objects_says_by_which_member_its_branches_differ() -> None:
    for name, shape in bundle(ROWS, experimental=True)["$defs"].items():
        for node in _walk(shape):
            if "oneOf" in node:
                assert node["discriminator"]["propertyName"] in ("type", "method"), name


def _walk(node: Any) -> list[dict[str, Any]]:
    if isinstance(node, list):
        return [found for item in node for found in _walk(item)]
    if isinstance(node, dict):
        return [node, *(found for item in node.values() for found in _walk(item))]
    return []


def test_experimental_methods_and_fields_are_only_in_the_experimental_schema() -> None:
    stable, all_of_it = bundle(ROWS, experimental=False), bundle(ROWS, experimental=True)
    assert methods_of(stable) == ["thread/start"]
    assert methods_of(all_of_it) == ["thread/start", "thread/queue/add"]
    assert "historyMode" not in stable["$defs"]["ThreadStartParams"]["properties"]
    assert "historyMode" in all_of_it["$defs"]["ThreadStartParams"]["properties"]


def test_a_request_is_accepted_by_its_own_branch_and_one_of_a_wrong_shape_by_none() -> None:
    schema = bundle(ROWS, experimental=True)
    validator = jsonschema.Draft202012Validator({**schema, "$ref": "#/$defs/ClientRequest"})
    validator.validate({"id": 1, "method": "thread/start", "params": {"model": "m"}})
    assert not validator.is_valid({"id": 1, "method": "thread/start", "params": {"model": 5}})
    assert not validator.is_valid({"id": None, "method": "thread/start", "params": {}})
    assert not validator.is_valid({"id": 1, "method": "no/such", "params": {}})


def test_the_bundle_is_written_into_a_folder_made_for_it(tmp_path: Path) -> None:
    file = write_bundle(tmp_path / "a" / "b", ROWS, experimental=True)
    assert file == tmp_path / "a" / "b" / FILE_NAME
    assert json.loads(file.read_bytes()) == bundle(ROWS, experimental=True)
