from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from medmap_monai.metrics.paired_tests import holm, paired_test


def test_small_samples_have_the_exact_p_value():
    first, second = np.zeros(6), np.array([0.1, 0.2, -0.05, 0.3, 0.4, 0.25])
    # brute force: the rank sum under all sign patterns
    ranks = np.argsort(np.argsort(np.abs(second))) + 1
    sums = [sum(r for r, s in zip(ranks, signs, strict=True) if s) for signs in product((0, 1), repeat=6)]
    observed = ranks[second > 0].sum()
    middle = ranks.sum() / 2
    expected = np.mean([abs(s - middle) >= abs(observed - middle) for s in sums])
    result = paired_test(first, second, resamples=200)
    assert result.p == pytest.approx(expected)
    assert result.n == 6
    assert result.difference == pytest.approx(0.2)
    assert result.interval[0] < 0.2 < result.interval[1]


def test_excluded_cases_and_equal_methods():
    assert paired_test([0.1, float("nan"), 0.3], [0.2, 0.5, 0.3]).n == 2
    assert paired_test([0.1, 0.2], [0.1, 0.2]).p is None
    with pytest.raises(ValueError, match="equal length"):
        paired_test([0.1], [0.1, 0.2])
    with pytest.raises(ValueError, match="no case"):
        paired_test([float("nan")], [0.1])


def test_holm():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([None, 0.5, 0.9]) == [None, 1.0, 1.0]
    assert holm([]) == []
