"""What a step costs, counted in units that hold on every machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Cost:
    """Work of a step, or of many.

    training_steps: optimiser steps per training name; of several processes each does that many at once.
    windows: windows of an all-subset evaluation per training name, at most (windows of background alone are skipped).
    cases: studies read.
    """

    training_steps: Mapping[str, int] = field(default_factory=dict)
    windows: Mapping[str, int] = field(default_factory=dict)
    cases: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            _add(self.training_steps, other.training_steps),
            _add(self.windows, other.windows),
            self.cases + other.cases,
        )

    def __str__(self) -> str:
        steps, windows = sum(self.training_steps.values()), sum(self.windows.values())
        parts = [f"{steps:,} training steps"] if steps else []
        parts += [f"at most {windows:,} windows with all subsets"] if windows else []
        parts += [f"{self.cases:,} studies read"] if self.cases else []
        return ", ".join(parts) or "seconds"


@dataclass(frozen=True)
class Speed:
    """Seconds of a unit per training name, measured or given; ``source`` says which.

    per_step: one optimiser step. per_window: one window, encoded once and decoded for every subset.
    """

    source: str
    per_step: Mapping[str, float] = field(default_factory=dict)
    per_window: Mapping[str, float] = field(default_factory=dict)

    def seconds(self, cost: Cost) -> float | None:
        """Seconds of what is counted; None where a speed is missing. Reading studies from disk is not in it."""
        total = 0.0
        for counts, rates in ((cost.training_steps, self.per_step), (cost.windows, self.per_window)):
            for name, count in counts.items():
                if name not in rates:
                    return None
                total += count * rates[name]
        return total


def duration(seconds: float) -> str:
    """``90`` -> ``1.5 min``: two digits in the unit that suits."""
    for unit, size in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def _add(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {name: one.get(name, 0) + other.get(name, 0) for name in dict.fromkeys([*one, *other])}
