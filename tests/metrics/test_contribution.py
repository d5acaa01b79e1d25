from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medmap_monai.metrics.contribution import expected_gain, shapley_values
from medmap_monai.modalities import BRATS, MYOPS, Modalities


def _by_permutations(table, names):
    """The definition: the mean marginal gain over every order of arrival."""
    total = dict.fromkeys(names, 0.0)
    orders = list(permutations(names))
    for order in orders:
        for position, name in enumerate(order):
            before, after = frozenset(order[:position]), frozenset(order[: position + 1])
            total[name] += table[after] - table[before]
    return {name: value / len(orders) for name, value in total.items()}


@settings(max_examples=25, deadline=None)
@given(data=st.data(), count=st.integers(1, 5), empty=st.sampled_from([0.0, 0.25]))
def test_equals_brute_force_over_permutations(data, count, empty):
    modalities = Modalities(tuple("abcde"[:count]))
    subsets = modalities.subsets()
    values = data.draw(st.lists(st.floats(0, 1), min_size=len(subsets), max_size=len(subsets)))
    scores = {"+".join(reversed(s)): v for s, v in zip(subsets, values, strict=True)}
    table = {frozenset(s): v for s, v in zip(subsets, values, strict=True)} | {frozenset(): empty}
    found = shapley_values(scores, modalities, empty_score=empty)
    expected = _by_permutations(table, modalities.names)
    np.testing.assert_allclose([found[m] for m in modalities], [expected[m] for m in modalities], atol=1e-12)
    assert sum(found.values()) == pytest.approx(table[frozenset(modalities.names)] - empty)


def test_a_modality_that_adds_nothing_and_two_that_are_alike():
    scores = {"+".join(s): float("t1ce" in s) * 0.5 + 0.2 * float("flair" in s or "t2" in s) for s in BRATS.subsets()}
    values = shapley_values(scores, BRATS)
    assert values == pytest.approx({"flair": 0.1, "t1ce": 0.5, "t1": 0.0, "t2": 0.1})


def test_expected_gain():
    scores = {"+".join(s): float(len(s)) for s in MYOPS.subsets()} | {"bssfp+lge": 5.0}
    assert expected_gain(scores, MYOPS, "bssfp") == {"lge": 4.0, "t2": 1.0}
    assert list(expected_gain(scores, MYOPS, ["bssfp"])) == ["lge", "t2"]
    assert expected_gain(scores, MYOPS, "lge+bssfp+t2") == {}


def test_errors_name_what_is_missing():
    scores = {"+".join(s): 1.0 for s in MYOPS.subsets()}
    del scores["bssfp+t2"]
    with pytest.raises(ValueError, match=r"bssfp\+t2"):
        shapley_values(scores, MYOPS)
    with pytest.raises(ValueError, match=r"bssfp\+t2"):
        expected_gain(scores, MYOPS, "t2")
    with pytest.raises(ValueError, match="empty subset"):
        expected_gain(scores, MYOPS, [])
    with pytest.raises(ValueError, match="flair"):
        expected_gain(scores, MYOPS, "flair")
