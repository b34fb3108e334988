"""All mutants, by what of the core they break."""

from __future__ import annotations

from tests.mutants import agent, attaching, commits, mailbox_and_step, persistence, queueing, transport, turns
from tests.mutants.mutant import Mutant

ROOMS: dict[str, list[Mutant]] = {
    "Mailbox, step, and the life of a thread": mailbox_and_step.MUTANTS,
    "Attaching, replay, questions": attaching.MUTANTS,
    "Turns": turns.MUTANTS,
    "The queue": queueing.MUTANTS,
    "Commits": commits.MUTANTS,
    "Index, files, recovery": persistence.MUTANTS,
    "Transport": transport.MUTANTS,
    "Agent": agent.MUTANTS,
}
EVERY = [mutant for mutants in ROOMS.values() for mutant in mutants]
