from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from medmap_monai.metrics.bootstrap import bootstrap_interval


def test_agrees_with_scipy_and_is_seeded():
    values = np.random.default_rng(3).normal(0.7, 0.1, 40)
    low, high = bootstrap_interval(values, resamples=4000, seed=1)
    other = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=4000).confidence_interval
    assert low == pytest.approx(other.low, abs=0.004)
    assert high == pytest.approx(other.high, abs=0.004)
    assert (low, high) == bootstrap_interval(values, resamples=4000, seed=1)
    assert (low, high) != bootstrap_interval(values, resamples=4000, seed=2)


def test_covers_the_mean_about_as_often_as_promised():
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        low, high = bootstrap_interval(rng.normal(size=50), resamples=300, seed=trial)
        hits += low <= 0 <= high
    assert 175 <= hits <= 199


def test_excluded_cases_and_too_few():
    assert bootstrap_interval([0.5, float("nan")]) is None
    assert bootstrap_interval([]) is None
    assert bootstrap_interval([1.0, 1.0, float("nan")]) == (1.0, 1.0)


@pytest.mark.parametrize("kwargs", [{"confidence": 1.0}, {"confidence": 0}, {"resamples": 0}])
def test_bad_arguments(kwargs):
    with pytest.raises(ValueError, match=next(iter(kwargs))):
        bootstrap_interval([1.0, 2.0], **kwargs)
