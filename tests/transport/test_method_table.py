from __future__ import annotations

import inspect

from pydantic.alias_generators import to_camel

from transport.methods import METHODS
from transport.not_offered import NOT_OFFERED


def test_every_row_is_known_once_under_its_own_name() -> None:
    assert all(name == row.name for name, row in METHODS.items())
    assert next(iter(METHODS)) == "initialize"
    offered = [row for row in METHODS.values() if row.offered]
    assert len(METHODS) == len(offered) + len(NOT_OFFERED)


def test_gated_fields_are_fields_with_a_default_that_asks_for_nothing() -> None:
    for row in METHODS.values():
        fields = {to_camel(name): field for name, field in row.params.model_fields.items()}
        for gated in row.gated_fields:
            assert fields[gated].default in (None, False), f"{row.name}.{gated}"


def test_the_kind_of_a_row_fits_its_handler() -> None:
    for row in METHODS.values():
        assert inspect.iscoroutinefunction(row.handler) == (row.kind == "task"), row.name
