"""Hypothesis plays the clients: it chooses each step of a world that is alive, and makes a failure short.

The steps are those of ``spoold-sim``, and so is the way to replay them. What hypothesis adds is its own idea
of which steps are worth a try, and its shrinking.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from actors import queue_rows
from spoold.testing.exploration.rules import Broken
from spoold.testing.exploration.schedules import run_schedule
from spoold.testing.exploration.step import Step
from spoold.testing.exploration.steps import ACTS


class LivingWorld:
    """A world in a thread of its own, which stands still until it is given its next step.

    Args:
        seed: of the world.

    Raises:
        BaseException: of a step that has broken a rule; the world is gone then.
    """

    def __init__(self, seed: int) -> None:
        self._steps = queue.SimpleQueue[Step | None]()
        self._outcomes = queue.SimpleQueue[BaseException | None]()
        self._over = False
        self._thread = threading.Thread(target=self._live, args=(seed,), daemon=True)
        self._thread.start()
        self._wait()

    def take(self, step: Step) -> None:
        """Take a step; on return all rules hold after it."""
        self._steps.put(step)
        self._wait()

    def end(self) -> None:
        """Let everything heal and come to its end; then all shows the same, and nothing waits."""
        if not self._over:
            self._steps.put(None)
            self._wait()
        self._thread.join()

    def _wait(self) -> None:
        error = self._outcomes.get()
        self._over = error is not None or not self._thread.is_alive()
        if error is not None:
            raise error

    def _live(self, seed: int) -> None:
        outcome: BaseException | None = None
        try:
            run_schedule(seed, self._given())
        except BaseException as error:
            outcome = error
        self._outcomes.put(outcome)

    def _given(self) -> Iterator[Step]:
        while True:
            # Trio's loop waits here, too: nothing happens that hypothesis has not asked for.
            self._outcomes.put(None)
            step = self._steps.get()
            if step is None:
                return
            yield step


NUMBERS = st.integers(0, 31)


class Machine(RuleBasedStateMachine):
    """One rule per step."""

    world: LivingWorld | None = None

    @initialize(seed=st.integers(0, 1000))
    def begin(self, seed: int) -> None:
        self.world = LivingWorld(seed)
        for step in (("connect", 0, 0, 0), ("start_thread", 0, 0, 0), ("settle", 0, 0, 0)):
            self.world.take(step)

    def teardown(self) -> None:
        if self.world is not None:
            self.world.end()


def _rule(kind: str) -> Callable[..., None]:
    def step(self: Machine, a: int, b: int, c: int) -> None:
        assert self.world is not None
        self.world.take((kind, a, b, c))

    step.__name__ = kind
    return rule(a=NUMBERS, b=NUMBERS, c=NUMBERS)(step)


for _kind in ACTS:
    setattr(Machine, _kind, _rule(_kind))

QUIET: dict[str, Any] = {"deadline": None, "suppress_health_check": list(HealthCheck)}


def test_whatever_hypothesis_does_the_rules_hold() -> None:
    run_state_machine_as_test(Machine, settings=settings(max_examples=60, stateful_step_count=30, **QUIET))


def test_hypothesis_finds_a_daemon_that_never_drains_its_queue_and_names_the_seed_and_the_schedule(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(queue_rows, "may_drain", lambda state: False)
    with pytest.raises(Broken, match="rule 5") as broken:
        run_state_machine_as_test(
            Machine,
            # To make it short takes hypothesis longer than ``spoold-sim``, which does it for a seed.
            settings=settings(max_examples=300, stateful_step_count=30, phases=[Phase.generate], **QUIET),
        )
    notes = "\n".join(broken.value.__notes__)
    assert "replay with: spoold-sim replay" in notes
    assert "seed=" in notes
    assert "schedule=" in notes
