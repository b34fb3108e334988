"""Every step by its name."""

from __future__ import annotations

from spoold.testing.exploration import (
    connection_steps,
    machine_steps,
    queue_steps,
    thread_steps,
    turn_steps,
)
from spoold.testing.exploration.step import Act

ACTS: dict[str, Act] = {
    act.__name__: act
    for page in (connection_steps, turn_steps, thread_steps, queue_steps, machine_steps)
    for act in page.STEPS
}
