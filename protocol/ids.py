"""Thread ids on input: any UUID text form; what is wrong with another is said as the reference says it."""

from __future__ import annotations

import uuid

from protocol.errors import InvalidRequest

_HEX = set("0123456789abcdefABCDEF")


def parse_uuid(text: str) -> str:
    """The canonical form of a UUID in any accepted form (hyphenated, simple, braced, URN).

    Raises:
        ValueError: the text is none; the message is the one clients know.
    """
    body, offset = text, 0
    if text.lower().startswith("urn:uuid:"):
        body, offset = text[9:], 9
    elif text.startswith("{") and text.endswith("}") and len(text) > 1:
        body, offset = text[1:-1], 1
    for position, char in enumerate(body):
        if char not in _HEX and char != "-":
            raise ValueError(
                "invalid character: expected an optional prefix of `urn:uuid:` followed by [0-9a-fA-F-], "
                f"found `{char}` at {position + offset + 1}"
            )
    groups = body.split("-")
    if len(groups) == 1:
        if len(body) != 32:
            raise ValueError(f"invalid length: expected length 32 for simple format, found {len(body)}")
    elif len(groups) != 5:
        raise ValueError(f"invalid group count: expected 5, found {len(groups)}")
    else:
        for index, (group, expected) in enumerate(zip(groups, (8, 4, 4, 4, 12), strict=True)):
            if len(group) != expected:
                raise ValueError(
                    f"invalid group length in group {index}: expected {expected}, found {len(group)}"
                )
    return str(uuid.UUID(hex="".join(groups)))


def thread_id(text: str, noun: str = "thread") -> str:
    """Check a thread id from a client; ``noun`` is ``thread`` or ``session`` in the error's text.

    Raises:
        InvalidRequest: it is no UUID.
    """
    try:
        return parse_uuid(text)
    except ValueError as error:
        raise InvalidRequest(f"invalid {noun} id: {error}") from None
