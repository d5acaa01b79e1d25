"""Imbalanced missing rates: which modalities each case keeps, drawn once for a whole data set."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from medmap_monai.modalities import Modalities

# The order in which the published script fills the subsets, over T1, T1ce, FLAIR, T2 (1 = present). It decides which
# case gets which subset, so it matters for reproducing the published files and for nothing else.
_PUBLISHED_ORDER = (
    *("1111", "1101", "1110", "1100", "1011", "1010", "1001", "1000"),
    *("0111", "0101", "0110", "0100", "0011", "0010", "0001"),
)


def draw_availability(
    cases: int, rates: Mapping[str, float], seed: int, allocation: str = "expected"
) -> list[tuple[str, ...]]:
    """The modalities that each of ``cases`` cases keeps; never none.

    Method (section "imbalanced" of the PASSION paper, generalised to any number M of modalities): each of the 2^M - 1
    non-empty subsets is given to its expected number of cases under independent missing (rounded down, but at least
    one unless a rate of 0 or 1 rules it out);
    the remaining cases, which stand for the all-missing ones, are drawn modality by modality until something is left;
    a seeded permutation decides which case gets what. The same numbers come out on every platform.

    Args:
        cases: number of cases.
        rates: missing rate per modality, in the order in which the modalities are to be drawn.
        seed: seed of the draw.
        allocation: ``expected`` as above; ``independent`` draws every case on its own (for cohorts smaller than the
            number of subsets, at the price of counts that scatter); ``passion`` is ``expected`` with the random stream
            of the published script, so that the published files come out cell for cell.

    Raises:
        ValueError: a rate outside 0..1, all rates 1, or fewer cases than subsets.

    Example:
        >>> draw_availability(8, {"flair": 0.2, "t2": 0.7}, seed=0)[:3]  # doctest: +SKIP
    """
    allocations = ("expected", "independent", "passion")
    if allocation not in allocations:
        raise ValueError(f"allocation {allocation!r} is unknown; allowed are {', '.join(allocations)}")
    names = tuple(Modalities(tuple(rates)))
    bad = {name: rate for name, rate in rates.items() if not 0 <= rate <= 1}
    if bad:
        raise ValueError(f"missing rates must be from 0 to 1, got {bad}")
    if all(rate == 1 for rate in rates.values()):
        raise ValueError("every missing rate is 1, so no case could have anything")
    if cases < 1:
        raise ValueError(f"at least one case is needed, got {cases}")
    # RandomState, not default_rng: its stream is frozen for all versions of numpy and all platforms
    random = np.random.RandomState(seed)
    present = np.zeros((cases, len(names)), dtype=bool)
    if allocation != "independent":
        if allocation == "passion":
            random.rand(len(names), cases)  # the published script draws and drops one number per case and modality
        subsets = _subset_order(names, published=allocation == "passion")
        counts = _counts(cases, rates, subsets)
        filled = [mask for mask, count in zip(subsets, counts, strict=True) for _ in range(count)]
        present[: len(filled)] = filled
        present = present[random.permutation(cases)]
    for row in present:
        while not row.any():
            row[:] = [random.rand() > rate for rate in rates.values()]
    return [tuple(name for name, flag in zip(names, row, strict=True) if flag) for row in present]


def realised_rates(available: Sequence[Sequence[str]], modalities: Sequence[str]) -> dict[str, float]:
    """The share of cases that lack each modality."""
    if not available:
        raise ValueError("no case to count")
    return {name: sum(name not in subset for subset in available) / len(available) for name in modalities}


def _subset_order(names: tuple[str, ...], published: bool) -> list[tuple[bool, ...]]:
    """All non-empty subsets in a fixed order: binary counting down from "all", or the published order for four."""
    if published and len(names) == 4:
        return [tuple(digit == "1" for digit in code) for code in _PUBLISHED_ORDER]
    codes = range(2 ** len(names) - 1, 0, -1)
    return [tuple(bool(code >> bit & 1) for bit in reversed(range(len(names)))) for code in codes]


def _counts(cases: int, rates: Mapping[str, float], subsets: list[tuple[bool, ...]]) -> list[int]:
    """How many cases get each subset: the expected number rounded down, at least one where it is possible at all."""
    counts = []
    for mask in subsets:
        expected = float(cases)
        for flag, rate in zip(mask, rates.values(), strict=True):
            expected *= 1 - rate if flag else rate  # from left to right, in float64, as the published script
        counts.append(max(1, math.floor(expected)) if expected > 0 else 0)
    possible = sum(count > 0 for count in counts)
    if cases < possible:
        raise ValueError(
            f"{possible} subsets of {len(rates)} modalities need at least {possible} cases, got {cases}; "
            "draw such a small cohort with allocation 'independent'"
        )
    # The minimum of one can add up to more cases than there are: then the largest subsets give theirs back.
    while sum(counts) > cases:
        counts[counts.index(max(counts))] -= 1
    return counts
