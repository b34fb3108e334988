from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.base import Wire
from protocol.initialize import InitializeParams, _usual

ANYTHING = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.lists(st.text(max_size=5))


def objects(**members: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Objects with some of these members, right or wrong, and one that nobody knows."""
    return ANYTHING | st.fixed_dictionaries({}, optional={**members, "unknown": ANYTHING})


HANDSHAKES = objects(
    clientInfo=objects(name=ANYTHING, title=ANYTHING, version=ANYTHING),
    capabilities=objects(
        experimentalApi=ANYTHING, optOutNotificationMethods=ANYTHING, experimental_api=ANYTHING
    ),
)
USUAL = {"clientInfo": {"name": "n", "title": None, "version": "1"}}


@given(HANDSHAKES)
def test_what_is_read_without_the_validator_is_what_the_validator_reads(value: Any) -> None:
    usual = _usual(value)
    if usual is not None:
        assert usual == Wire.from_wire.__func__(InitializeParams, value)


@pytest.mark.parametrize(
    "value",
    [
        USUAL,
        {**USUAL, "capabilities": None},
        {**USUAL, "capabilities": {}},
        {**USUAL, "capabilities": {"experimentalApi": True, "requestAttestation": False}},
        {**USUAL, "capabilities": {"optOutNotificationMethods": ["thread/started"]}},
    ],
)
def test_the_usual_handshakes_need_no_validator(value: Any) -> None:
    assert _usual(value) is not None


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        {"clientInfo": {"name": "n"}},
        {"clientInfo": {"name": "n", "version": 1}},
        {"clientInfo": {"name": "n", "version": "1", "title": 5}},
        {**USUAL, "capabilities": []},
        {**USUAL, "capabilities": {"experimentalApi": "yes"}},
        {**USUAL, "capabilities": {"optOutNotificationMethods": [1]}},
    ],
)
def test_what_is_wrong_is_left_to_the_validator(value: Any) -> None:
    assert _usual(value) is None
    with pytest.raises(ValueError):
        InitializeParams.from_wire(value)
