"""What a mutant is.

Theory. A test proves something only if it fails when what it is about is broken. So the core is broken on
purpose, in one place at a time, and somebody has to notice. The breaks are made by hand, one for each rule
that the daemon promises to keep: a tool that flips operators finds many that change nothing which anybody was
promised, and it does not know how to forget a flush.

Each mutant names who kills it: the narrowest tests that must fail. Such a test failing says more than the
whole suite failing, because it shows that the break is seen where the rule is tested, and it costs seconds.

A mutant that nobody can notice, because another line keeps the same rule, does not belong here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

EXPLORATION = (
    "-m",
    "spoold.testing.exploration",
    "explore",
    "--seconds",
    "60",
    "--jobs",
    "1",
    "--enough",
    "1",
)
"""A ``command`` that knows nothing of the mutant: random schedules, for a minute at most."""


class DoesNotApply(Exception):
    """The code has changed: the mutant's place is not there any more, or not once."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One deliberate bug.

    Attributes:
        name: what is wrong then, as a sentence.
        breaks: the rule that it breaks.
        file: where, from the root of the tree.
        old, new: the text that is replaced, which is in the file exactly once, and what takes its place.
        killers: pytest node ids; one of them failing is enough.
        command: instead of tests, what to run with the interpreter, such as an exploration of the simulated
            world: it has found the mutant if it ends with 1.
    """

    name: str
    breaks: str
    file: str
    old: str
    new: str
    killers: Sequence[str] = ()
    command: Sequence[str] = ()

    def applied(self, source: str) -> str:
        """The file's text with the bug in it.

        Raises:
            DoesNotApply: the place is not there exactly once.
        """
        found = source.count(self.old)
        if found != 1:
            raise DoesNotApply(f"{self.name!r}: its old text is {found} times in {self.file}")
        return source.replace(self.old, self.new)

    def apply(self, tree: Path) -> None:
        """Put the bug into a tree, which must be a copy.

        Raises:
            DoesNotApply: see ``applied``.
        """
        path = tree / self.file
        path.write_text(self.applied(path.read_text(encoding="utf-8")), encoding="utf-8")
