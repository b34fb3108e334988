"""A simulated world for tests: the real daemon, its clock, disk, network and model under a test's control.

The names are loaded when they are first used, so that a test run that names the plugin pays for nothing else.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spoold.testing.client import SimulatedClient
    from spoold.testing.client_state import ClientState
    from spoold.testing.disk import Crash, Disk
    from spoold.testing.scripted_model import InMemoryModel
    from spoold.testing.wire import Wire
    from spoold.testing.world import SimulatedDaemon, World, simulate

__all__ = [
    "ClientState",
    "Crash",
    "Disk",
    "InMemoryModel",
    "SimulatedClient",
    "SimulatedDaemon",
    "Wire",
    "World",
    "simulate",
]

_PAGES = {
    "ClientState": "client_state",
    "Crash": "disk",
    "Disk": "disk",
    "InMemoryModel": "scripted_model",
    "SimulatedClient": "client",
    "SimulatedDaemon": "world",
    "Wire": "wire",
    "World": "world",
    "simulate": "world",
}


def __getattr__(name: str) -> Any:
    if name not in _PAGES:
        raise AttributeError(name)
    return getattr(importlib.import_module(f"spoold.testing.{_PAGES[name]}"), name)
