"""Model clients, one per provider and configuration, opened when first used and closed with the daemon."""

from __future__ import annotations

import os
from contextlib import suppress

from agent.model.events import ModelClient
from agent.model.provider import ProviderConfig, find_provider, open_client
from persistence.config import Config, ConfigError
from protocol.runtime import Runtime


class ModelClients:
    """Gives turns their client; threads with the same provider share one and its connections."""

    def __init__(self, config: Config, runtime: Runtime) -> None:
        self._config = config
        self._runtime = runtime
        self._open: dict[str, tuple[ProviderConfig, ModelClient]] = {}

    def client(self, provider: str) -> tuple[ProviderConfig, ModelClient]:
        """The provider's settings and its client.

        Raises:
            ValueError: the provider's table is wrong; the message names the key.
        """
        if provider not in self._open:
            settings = find_provider(provider, self._config.values.get("model_providers", {}))
            self._open[provider] = (settings, open_client(settings, os.environ, self._runtime))
        return self._open[provider]

    async def prepare(self) -> None:
        """Let the configured provider's client do in advance what its first turn would wait for."""
        with suppress(ConfigError, ValueError):  # the first turn will say what is wrong with the table
            _, client = self.client(self._config.model_provider)
            await client.prepare()

    async def aclose(self) -> None:
        """Close every client's connections."""
        for _, client in self._open.values():
            await client.aclose()
