"""Folds by case: exact sizes, determinism, strata."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medmap_monai.data.folds import assign_folds
from medmap_monai.data.patients import straddling

CASES = [f"case_{number:03d}" for number in range(60)]


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ({}, {"train": 60}),
        ({"val": 10, "test": 20}, {"train": 30, "val": 10, "test": 20}),
        ({"val": 0.1, "test": 0.25}, {"train": 39, "val": 6, "test": 15}),
        ({"train": 30, "val": 5}, {"train": 30, "val": 5}),
        ({"val": 0.001}, {"train": 59, "val": 1}),
    ],
)
def test_sizes(sizes: dict[str, float], expected: dict[str, int]) -> None:
    assert Counter(assign_folds(CASES, **sizes).values()) == expected


def test_partition_is_pinned() -> None:
    # the partition is a promise: results of one version stay comparable with the next
    folds = assign_folds(["a", "b", "c", "d", "e", "f"], val=2, test=1, seed=3)
    assert folds == {"a": "val", "b": "train", "c": "val", "d": "train", "e": "train", "f": "test"}


def test_all_cases_of_a_patient_lie_in_one_fold() -> None:
    patients = {f"p{number % 23:02d}-{number // 23}": f"p{number % 23:02d}" for number in range(60)}  # 2 or 3 each
    folds = assign_folds(list(patients), val=0.2, test=0.2, seed=4, patients=patients)
    assert straddling(folds, patients) == {}
    sizes = Counter(folds.values())
    assert sum(sizes.values()) == 60
    assert all(9 <= sizes[fold] <= 12 for fold in ("val", "test"))
    assert straddling(assign_folds(list(patients), val=0.2, test=0.2, seed=4), patients)  # by case they would not


def test_one_case_per_patient_gives_the_partition_by_case() -> None:
    patients = {case: f"patient of {case}" for case in CASES}
    for sizes in ({"val": 0.1, "test": 0.25}, {"train": 30, "val": 5, "test": 7}):
        assert assign_folds(CASES, seed=2, patients=patients, **sizes) == assign_folds(CASES, seed=2, **sizes)


def test_a_fold_that_is_asked_for_is_not_empty() -> None:
    cases = ["a-0", "a-1", "a-2", "b-0", "b-1", "b-2"]
    folds = assign_folds(cases, test=0.1, patients={case: case[0] for case in cases})
    assert Counter(folds.values()) == {"train": 3, "test": 3}


def test_order_does_not_matter_and_the_seed_does() -> None:
    folds = assign_folds(CASES, val=0.2, test=0.2, seed=1)
    assert list(folds) == CASES
    assert assign_folds(CASES[::-1], val=0.2, test=0.2, seed=1) == folds
    assert assign_folds(CASES, val=0.2, test=0.2, seed=2) != folds


@given(
    counts=st.lists(st.integers(1, 30), min_size=1, max_size=4),
    val=st.floats(0, 0.4),
    test=st.floats(0, 0.4),
    seed=st.integers(0, 5),
)
def test_strata_are_in_proportion(counts: list[int], val: float, test: float, seed: int) -> None:
    strata = {f"{group}-{i}": str(group) for group, count in enumerate(counts) for i in range(count)}
    if len(strata) < 4:
        return
    folds = assign_folds(list(strata), val=val, test=test, seed=seed, strata=strata)
    sizes = Counter(folds.values())
    assert sizes == Counter(assign_folds(list(strata), val=val, test=test, seed=seed).values())
    for group, count in enumerate(counts):
        for fold, size in sizes.items():
            inside = sum(folds[case] == fold for case, stratum in strata.items() if stratum == str(group))
            assert abs(inside - size * count / len(strata)) <= 2


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"val": 40, "test": 40}, "60 cases exist"),
        ({"train": 61}, "60 cases exist"),
        ({"val": -1}, "fold val"),
        ({"test": 2.5}, "whole number or a fraction"),
        ({"strata": {"case_000": "x"}}, "case_001 has no stratum"),
    ],
)
def test_bad_arguments(kwargs: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        assign_folds(CASES, **kwargs)  # type: ignore[arg-type]


def test_repeated_cases() -> None:
    with pytest.raises(ValueError, match="unique"):
        assign_folds(["a", "a"])
