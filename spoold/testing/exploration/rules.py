"""Breaking a rule, and what it says.

The reference model is two pages: ``connection_model`` and ``thread_model``. No daemon is imitated in them:
they are its rules (those of actors, and what is on disk when) as what any client may and may not see.
"""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

UNRECORDED = "the turn could not be recorded"
"""How the error of a turn begins that the disk has failed: it is told to have failed, and read as cut off."""


class Broken(AssertionError):
    """A rule is broken."""


def rule(held: bool, what: str) -> None:
    """Raise ``Broken`` unless it is so."""
    if not held:
        raise Broken(what)
