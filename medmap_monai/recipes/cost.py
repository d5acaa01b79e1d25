"""What a step costs, counted in units that hold on every machine."""

from __future__ import annotations

from dataclasses import dataclass

from medmap_monai.utils.counted import counted


@dataclass(frozen=True)
class Cost:
    """Work of a step, or of many.

    training_steps: optimiser steps; of several processes each does that many at once.
    windows: windows of an all-subset evaluation, at most (windows of background alone are skipped).
    cases: studies read.
    """

    training_steps: int = 0
    windows: int = 0
    cases: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.training_steps + other.training_steps, self.windows + other.windows, self.cases + other.cases)

    def __str__(self) -> str:
        parts = [f"{self.training_steps:,} training steps"] if self.training_steps else []
        parts += [f"at most {self.windows:,} windows with all subsets"] if self.windows else []
        parts += [f"{counted(self.cases, 'study')} read"] if self.cases else []
        return ", ".join(parts) or "seconds"

    def seconds(self, per_step: float | None, per_window: float | None) -> float | None:
        """Seconds of steps and windows; None where the time of one is needed and not known."""
        total = 0.0
        for count, rate in ((self.training_steps, per_step), (self.windows, per_window)):
            if count and rate is None:
                return None
            total += count * (rate or 0.0)
        return total


def duration(seconds: float) -> str:
    """``90`` -> ``1.5 min``: two digits in the unit that suits."""
    for unit, size in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
