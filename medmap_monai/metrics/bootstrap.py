"""Confidence intervals of a mean over cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DEFAULT_RESAMPLES = 2000


@dataclass(frozen=True)
class Bootstrap:
    """How confidence intervals are drawn.

    Args:
        confidence: 0 to 1.
        resamples: number of bootstrap samples.
        seed: of the draws.
    """

    confidence: float = 0.95
    resamples: int = DEFAULT_RESAMPLES
    seed: int = 0

    def interval(self, values: Sequence[float] | NDArray[np.floating]) -> tuple[float, float] | None:
        """:func:`bootstrap_interval` of ``values``, one per case."""
        return bootstrap_interval(values, self.confidence, self.resamples, self.seed)


def bootstrap_interval(
    values: Sequence[float] | NDArray[np.floating],
    confidence: float = 0.95,
    resamples: int = DEFAULT_RESAMPLES,
    seed: int = 0,
) -> tuple[float, float] | None:
    """Percentile bootstrap interval of the mean, cases drawn with replacement.

    Plain NumPy and not ``scipy.stats.bootstrap``: the draws come from one seeded PCG64 stream of indices, so the
    interval is the same on every platform and SciPy version, which result files that must be byte-identical need.

    Args:
        values: one value per case; NaN (excluded cases) are dropped first.
        confidence: 0 to 1.
        resamples: number of bootstrap samples.
        seed: of the draws.

    Returns:
        lower and upper end in the unit of the values; None when fewer than two cases are left.

    Raises:
        ValueError: when ``confidence`` is not inside (0, 1) or ``resamples`` is below 1.
    """
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}")
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}")
    kept = np.asarray(values, dtype=np.float64)
    kept = kept[~np.isnan(kept)]
    if kept.size < 2:
        return None
    draws = np.random.default_rng(seed).integers(0, kept.size, size=(resamples, kept.size))
    means = kept[draws].mean(axis=1)
    tail = 100.0 * (1.0 - confidence) / 2.0
    low, high = np.percentile(means, [tail, 100.0 - tail])
    return float(low), float(high)
