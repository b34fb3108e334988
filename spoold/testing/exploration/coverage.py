"""What a number of schedules have reached: so that a corner that was never explored is seen."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from spoold.testing.exploration.scene import Scene
from spoold.testing.exploration.steps import ACTS

MOST_NAMED = 40


@dataclass
class Coverage:
    """What a number of schedules have reached.

    Attributes:
        schedules: how many were run.
        states: what a thread was like when a step was taken.
        pairs: which step followed which.
        moves: which step was taken in which state.
        refusals: methods that were refused.
        methods: methods that were answered.
        happened: rare things: how connections ended, error codes, instants at which the daemon died.
    """

    schedules: int = 0
    states: Counter[str] = field(default_factory=Counter)
    pairs: Counter[tuple[str, str]] = field(default_factory=Counter)
    moves: Counter[tuple[str, str]] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    methods: Counter[str] = field(default_factory=Counter)
    happened: Counter[str] = field(default_factory=Counter)

    def step(self, scene: Scene, before: str, kind: str) -> None:
        """A step is taken, after another one."""
        if before:
            self.pairs[before, kind] += 1
        for state in states(scene):
            self.states[state] += 1
            self.moves[state, kind] += 1

    def ended(self, scene: Scene) -> None:
        """A schedule is over."""
        died_at = scene.daemon.disk.died_at.items()
        self.happened.update({f"death {name}": count for name, count in died_at if count})
        for client in scene.clients:
            self.refusals.update(client.refusals)
            self.methods.update(client.answers)
            self.happened.update(client.happened)

    def add(self, other: Coverage) -> None:
        """What others have reached, too."""
        self.schedules += other.schedules
        self.states += other.states
        self.pairs += other.pairs
        self.moves += other.moves
        self.refusals += other.refusals
        self.methods += other.methods
        self.happened += other.happened

    def report(self) -> str:
        """The numbers, and the corners that were never reached."""
        unseen_pairs = sorted({(one, two) for one in ACTS for two in ACTS} - self.pairs.keys())
        unseen_moves = sorted({(state, kind) for state in self.states for kind in ACTS} - self.moves.keys())
        lines = [
            f"{self.schedules} schedules, {sum(self.states.values())} steps",
            f"{len(self.states)} states: {_counted(self.states)}",
            f"{len(self.pairs)} of {len(ACTS) ** 2} pairs of steps, "
            f"{len(self.moves)} of {len(self.states) * len(ACTS)} pairs of state and step",
            f"answered: {_counted(self.methods)}",
            f"rare: {_counted(self.happened)}",
            f"refused: {_counted(self.refusals)}",
        ]
        for what, unseen in (("one after the other", unseen_pairs), ("in this state", unseen_moves)):
            if unseen:
                named = ", ".join(f"{first} - {second}" for first, second in unseen[:MOST_NAMED])
                more = f", and {len(unseen) - MOST_NAMED} more" if len(unseen) > MOST_NAMED else ""
                lines.append(f"never {what}: {named}{more}")
        return "\n".join(lines)


def states(scene: Scene) -> list[str]:
    """What each thread is like, in few words."""
    daemon = scene.daemon
    if not daemon.running:
        return ["down"]
    if scene.stopping:
        return ["draining"]
    found = []
    for thread_id, facts in scene.facts.items():
        turn = next((c.stream(thread_id).turn for c in scene.clients if thread_id in c.attached), None)
        watchers = sum(thread_id in client.attached for client in scene.clients)
        asked = any(client.stream(thread_id).prompts for client in scene.clients)
        waiting = sum(each.added and not each.deleted for each in facts.said.values())
        found.append(
            f"{'asking' if asked and turn else 'turn' if turn else 'idle'}"
            f"/{'queue' if waiting else 'empty'}/{'watched' if watchers else 'alone'}"
        )
    return found or ["no thread"]


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{what} {count}" for what, count in counts.most_common())
