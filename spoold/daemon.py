"""The daemon as the transport sees it: one object that joins the rooms and answers for the whole."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import trio

from actors.catalogue import Catalogue
from actors.peer import Peer
from actors.supervisor import Supervisor
from agent.model.known_models import models_of
from agent.tools.terminals import Terminal, Terminals
from persistence.config import Config
from protocol.daemon_methods import ConfigReadParams, ConfigReadResult, Model
from protocol.errors import InvalidRequest
from protocol.jsonrpc import Response
from protocol.runtime import Runtime
from spoold.version import __version__


class Daemon:
    """See ``transport.daemon.Daemon``, which this implements.

    Attributes:
        home: the home folder, absolute.
        runtime: clock, ids, randomness.
        supervisor: the loaded threads.
        catalogue: reads of threads.
        shutdown_requested: set when a client's leaving ends the daemon.
    """

    version = __version__

    def __init__(
        self,
        home: Path,
        runtime: Runtime,
        config: Config,
        supervisor: Supervisor,
        catalogue: Catalogue,
        terminals: Mapping[str, Terminals],
    ) -> None:
        self.home = home
        self.runtime: Runtime = runtime
        self.supervisor = supervisor
        self.catalogue = catalogue
        self.shutdown_requested = trio.Event()
        self._config = config
        self._terminals = terminals

    def peer_ready(self, peer: Peer) -> None:
        """The client gets broadcasts from now on."""
        self.supervisor.peer_ready(peer)

    def peer_gone(self, peer: Peer) -> None:
        """The client's subscriptions end; nothing else does."""
        self.supervisor.peer_gone(peer)

    def answer(self, peer: Peer, response: Response) -> None:
        """Route an answer to the thread that asked."""
        self.supervisor.answer(peer, response)

    def request_shutdown(self, reason: str) -> None:
        """End the daemon: the client that started it is gone."""
        self.shutdown_requested.set()

    def commands_in_background(self, thread_id: str) -> list[Terminal]:
        """What still runs of a loaded thread's commands although nobody waits for it."""
        terminals = self._terminals.get(thread_id)
        return [] if terminals is None else terminals.in_background()

    def provider_name(self, provider: str | None) -> tuple[str, str]:
        """A provider's id and its name; by default of the configured one.

        Raises:
            InvalidRequest: there is no such provider.
        """
        chosen = provider or self._config.model_provider
        table = self._config.model_providers.get(chosen)
        if table is None:
            raise InvalidRequest(f"Model provider `{chosen}` not found")
        return chosen, str(table.get("name") or chosen)

    def models(self, provider: str | None) -> list[Model]:
        """The models of a provider; the configured model comes first and is the default."""
        name = provider or self._config.model_provider
        chosen = self._config.model if name == self._config.model_provider else None
        return models_of(name, chosen or self._config.default_model(name))

    def read_config(self, params: ConfigReadParams) -> ConfigReadResult:
        """The effective configuration, secrets masked."""
        return ConfigReadResult(
            config=self._config.effective(),
            origins=self._config.origins(),
            layers=self._config.layer_list() if params.include_layers else None,
        )
