"""One row of the method table, and what a handler is called with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from protocol.base import Wire

if TYPE_CHECKING:
    from transport.connection import Connection
    from transport.daemon import Daemon
    from transport.reply import ReplySlot

Scope = Literal["connection", "daemon", "thread"]
Stability = Literal["stable", "experimental"]
Kind = Literal["inline", "task", "thread"]


@dataclass(frozen=True, slots=True)
class Call:
    """One request, checked and ready to be handled.

    Attributes:
        method: its name.
        params: an instance of the row's ``params`` model.
        raw: the same as it came, by its wire names.
        peer: the connection that asked.
        reply: the slot for the answer.
        daemon: the daemon behind the transport.
    """

    method: str
    params: Any
    peer: Connection
    reply: ReplySlot
    daemon: Daemon
    raw: Mapping[str, Any] = field(default_factory=dict)


Handler = Callable[[Call], Any]


DEFERRED: Any = object()
"""What a ``task`` handler returns when somebody else answers through ``call.reply``."""


@dataclass(frozen=True, slots=True)
class Method:
    """One row. Routing, gating, validation, the schema and the documentation follow from it.

    Attributes:
        name: as on the wire.
        params: the model of its parameters.
        result: the model of its result.
        scope: what it concerns.
        stability: ``experimental`` rows need the ``experimentalApi`` capability.
        kind: how ``handler`` is called. ``inline``: a function whose return value is the result.
            ``task``: an async function, run in the connection's nursery, whose return value is the
            result. ``thread``: a function that posts the call to a mailbox; the actor answers through
            ``call.reply``. A returned None is the result ``{}``, unless the handler answered itself;
            ``DEFERRED`` leaves the answer to somebody else. All may raise ``RpcError``.
        handler: the function.
        gated_fields: wire names of parameters that need the capability by themselves.
        offered: False for names that are known and answered with "not supported yet".
    """

    name: str
    params: type[Wire]
    result: type[Wire]
    scope: Scope
    stability: Stability
    kind: Kind
    handler: Handler
    gated_fields: tuple[str, ...] = ()
    offered: bool = True

    @property
    def params_optional(self) -> bool:
        """Whether a request without ``params`` is as good as one with ``{}``."""
        return not any(field.is_required() for field in self.params.model_fields.values())


MethodTable = dict[str, Method]
