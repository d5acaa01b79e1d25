"""Imbalanced missing rates: counts, determinism, any number of modalities."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medmap_monai.data.availability import draw_availability, realised_rates
from medmap_monai.data.splits import rates_of_combination
from medmap_monai.modalities import BRATS, Modalities

RATES = {"t1": 0.2, "t1ce": 0.4, "flair": 0.6, "t2": 0.8}


def _expected(cases: int, rates: dict[str, float], subset: frozenset[str]) -> float:
    return cases * float(np.prod([1 - rate if name in subset else rate for name, rate in rates.items()]))


@settings(max_examples=60)
@given(
    rates=st.lists(st.floats(0.05, 0.95), min_size=1, max_size=5),
    extra=st.integers(0, 200),
    seed=st.integers(0, 2**32 - 1),
    allocation=st.sampled_from(["expected", "passion", "independent"]),
)
def test_never_empty_and_deterministic(rates: list[float], extra: int, seed: int, allocation: str) -> None:
    by_name = {f"m{i}": rate for i, rate in enumerate(rates)}
    cases = 2 ** len(rates) - 1 + extra
    drawn = draw_availability(cases, by_name, seed, allocation)
    assert len(drawn) == cases
    assert all(drawn)
    assert all(set(names) <= set(by_name) for names in drawn)
    assert drawn == draw_availability(cases, by_name, seed, allocation)


@settings(max_examples=40)
@given(rates=st.lists(st.floats(0.1, 0.9), min_size=1, max_size=4), seed=st.integers(0, 1000))
def test_every_subset_has_its_expected_count(rates: list[float], seed: int) -> None:
    """At least the expected number rounded down, and one; the excess is the re-drawn remainder."""
    by_name = {f"m{i}": rate for i, rate in enumerate(rates)}
    cases = 400
    counts = Counter(frozenset(names) for names in draw_availability(cases, by_name, seed))
    subsets = [frozenset(subset) for subset in Modalities(tuple(by_name)).subsets()]
    least = {subset: max(1, int(_expected(cases, by_name, subset))) for subset in subsets}
    if sum(least.values()) <= cases:
        assert all(counts[subset] >= n for subset, n in least.items())


def test_published_counts_of_2468() -> None:
    """219 training cases of BraTS 2020: the published numbers of cases that have FLAIR, T1ce, T1, T2."""
    drawn = draw_availability(219, RATES, 1037, "passion")
    assert [sum(name in names for names in drawn) for name in ("flair", "t1ce", "t1", "t2")] == [90, 135, 184, 43]


@pytest.mark.parametrize(
    ("combination", "ids"),
    [
        (
            "2468",
            [5, 11, 13, 10, 5, 5, 4, 8, 10, 9, 5, 2, 2, 1, 3, 2, 5, 10, 2, 7]
            + [5, 6, 5, 2, 6, 12, 10, 13, 2, 2, 5, 10, 10, 6, 5, 0, 1, 14, 6, 6],
        ),
        (
            "8852",
            [12, 8, 10, 6, 4, 12, 0, 0, 7, 0, 8, 3, 0, 0, 0, 0, 8, 7, 3, 8]
            + [2, 8, 4, 8, 8, 0, 11, 13, 0, 8, 1, 11, 5, 8, 9, 0, 0, 14, 3, 8],
        ),
    ],
)
def test_passion_stream_is_pinned(combination: str, ids: list[int]) -> None:
    """Subset ids for 40 made-up cases, by the algorithm that reproduces the published files."""
    drawn = draw_availability(40, rates_of_combination(combination), 1037, "passion")
    assert [BRATS.subset_id(BRATS.mask(names)) for names in drawn] == ids


def test_own_stream_is_pinned() -> None:
    drawn = draw_availability(10, {"bssfp": 0.3, "lge": 0.5, "t2": 0.7}, 7)
    assert " ".join("+".join(names) for names in drawn) == (
        "t2 bssfp bssfp+lge+t2 bssfp+lge bssfp+lge bssfp+lge lge bssfp+t2 lge+t2 bssfp"
    )


def test_realised_rates_come_near_the_nominal_ones() -> None:
    realised = realised_rates(draw_availability(2000, RATES, 0), list(RATES))
    for name, rate in RATES.items():
        # the all-missing mass (.2 x .4 x .6 x .8 = 4 %) is given back to the others
        assert rate - 0.05 < realised[name] <= rate + 0.005


def test_independent_draw_scatters_around_the_rates() -> None:
    realised = realised_rates(draw_availability(4000, {"a": 0.3, "b": 0.6}, 1, "independent"), ["a", "b"])
    assert realised["a"] == pytest.approx((0.3 - 0.18) / 0.82, abs=0.03)
    assert realised["b"] == pytest.approx((0.6 - 0.18) / 0.82, abs=0.03)


def test_rates_of_zero_and_one_are_kept() -> None:
    drawn = draw_availability(50, {"always": 0.0, "never": 1.0, "half": 0.5}, 3)
    assert all("always" in names and "never" not in names for names in drawn)
    assert 0 < sum("half" in names for names in drawn) < 50


def test_minimum_of_one_may_exceed_the_number_of_cases() -> None:
    drawn = draw_availability(15, dict.fromkeys("abcd", 0.1), 0)
    assert len(set(drawn)) == 15


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"cases": 14}, r"15 subsets of 4 modalities need at least 15 cases, got 14.*independent"),
        ({"cases": 0}, "at least one case"),
        ({"rates": {"a": 1.2}}, r"from 0 to 1, got \{'a': 1.2\}"),
        ({"rates": {"a": 1.0, "b": 1.0}}, "every missing rate is 1"),
        ({"rates": {}}, "at least one modality"),
        ({"allocation": "random"}, "allowed are expected, independent, passion"),
    ],
)
def test_bad_arguments(kwargs: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {"cases": 40, "rates": RATES, "seed": 0, **kwargs}
    with pytest.raises(ValueError, match=message):
        draw_availability(**arguments)  # type: ignore[arg-type]


def test_realised_rates_of_nothing() -> None:
    with pytest.raises(ValueError, match="no case"):
        realised_rates([], ["a"])
