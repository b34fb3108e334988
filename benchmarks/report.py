"""Rows of the result: two absolute figures, their ratio, and the target where there is one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any

FLAT = 1.3
"""A cost is called flat if the next larger size does not raise it by more than this factor."""

Samples = Mapping[str, Sequence[float]]
"""Per program one figure for each round, in the order of the rounds."""


@dataclass(frozen=True)
class Row:
    """One measured thing.

    Attributes:
        ratio: spoold / reference, None where the reference was left out; or what the name says.
        target: the ratio that spoold is to stay at or below.
        more_is_better: for rates.
    """

    name: str
    unit: str
    spoold: float | None
    reference: float | None
    ratio: float | None
    target: float | None = None
    more_is_better: bool = False

    @property
    def missed(self) -> bool:
        """Whether there is a target and a ratio above it."""
        return self.target is not None and self.ratio is not None and self.ratio > self.target

    def as_json(self) -> dict[str, Any]:
        """The row as a JSON object."""
        return {**asdict(self), "missed": self.missed}


def paired(
    name: str,
    unit: str,
    samples: Samples,
    *,
    target: float | None = None,
    scale: float = 1.0,
    more_is_better: bool = False,
) -> Row:
    """A row of medians; its ratio is the median of the ratios of the rounds."""
    ours, theirs = samples.get("spoold"), samples.get("reference")
    ratio = None
    if ours and theirs:
        ratio = median(a / b for a, b in zip(ours, theirs, strict=True))
    return Row(
        name,
        unit,
        median(ours) * scale if ours else None,
        median(theirs) * scale if theirs else None,
        ratio,
        target,
        more_is_better,
    )


def flat(name: str, unit: str, samples: Mapping[int, Sequence[float]], *, scale: float = 1.0) -> list[Row]:
    """A row for each size: what one thing costs among so many, and for the last what it costs against the one
    before it (the median of the ratios of the rounds), which is to be about 1.

    ``samples``: per size, from small to large, one figure for each round.
    """
    rows = [
        Row(f"{name}, {size:,} rows", unit, median(figures) * scale, None, None)
        for size, figures in samples.items()
    ]
    *_, before, last = samples
    ratio = median(a / b for a, b in zip(samples[last], samples[before], strict=True))
    compared = f"{rows[-1].name} (ratio: to {before:,})"
    return [*rows[:-1], replace(rows[-1], name=compared, ratio=ratio, target=FLAT)]


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that ``percent`` percent of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def _figure(value: float | None) -> str:
    if value is None:
        return "-"
    digits = 0 if value >= 1000 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:,.{digits}f}"


def table(rows: Sequence[Row]) -> str:
    """The rows as text for a terminal."""
    lines = [("", "spoold", "reference", "", "ratio", "target", "")]
    for row in rows:
        verdict = "" if row.target is None or row.ratio is None else "MISSED" if row.missed else "met"
        target = "" if row.target is None else f"<= {row.target:g}"
        note = " (more is better)" if row.more_is_better else ""
        ratio = "-" if row.ratio is None else f"{row.ratio:.3f}"
        lines.append(
            (row.name + note, _figure(row.spoold), _figure(row.reference), row.unit, ratio, target, verdict)
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = []
    for line in lines:
        cells = [
            cell.ljust(width) if place in (0, 3, 6) else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        text.append("  ".join(cells).rstrip())
    return "\n".join(text)
