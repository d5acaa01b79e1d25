"""Comparing two methods on the same cases."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from medmap_monai.metrics.bootstrap import DEFAULT_RESAMPLES, bootstrap_interval


class PairedTest(NamedTuple):
    """``difference``: mean of second minus first over ``n`` cases, ``interval`` its 95 % bootstrap interval,
    ``p``: two-sided Wilcoxon signed-rank test (None where no case differs or there are fewer than two)."""

    n: int
    difference: float
    interval: tuple[float, float] | None
    p: float | None


def paired_test(
    first: Sequence[float] | NDArray[np.floating],
    second: Sequence[float] | NDArray[np.floating],
    resamples: int = DEFAULT_RESAMPLES,
    seed: int = 0,
) -> PairedTest:
    """Compare two methods by one value per case.

    Args:
        first: values of the first method, one per case; NaN leaves the case out.
        second: values of the second method for the same cases in the same order.
        resamples, seed: of the bootstrap interval.

    Raises:
        ValueError: when the lengths differ or no case is left.
    """
    one, two = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if one.shape != two.shape or one.ndim != 1:
        raise ValueError(f"paired values must be two lists of equal length, got {one.shape} and {two.shape}")
    difference = (two - one)[~np.isnan(two - one)]
    if difference.size == 0:
        raise ValueError("no case has a value for both methods")
    p = None
    if difference.size > 1 and np.any(difference != 0):
        p = float(stats.wilcoxon(difference).pvalue)
    interval = bootstrap_interval(difference, 0.95, resamples, seed)
    return PairedTest(int(difference.size), float(difference.mean()), interval, p)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction: p-values adjusted for the family of all tests in the list; None stays None.

    Holm, "A simple sequentially rejective multiple test procedure" (1979).
    """
    order = sorted((p, i) for i, p in enumerate(p_values) if p is not None and not math.isnan(p))
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, i) in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p))
        adjusted[i] = largest
    return adjusted
