from __future__ import annotations

from collections import Counter
from itertools import product

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.transforms import Compose

from medmap_monai.transforms.modality_dropout import RandModalityDropout, RandModalityDropoutd, keep_non_empty

NAMES = ("flair", "t1ce", "t1", "t2")
present_masks = st.lists(st.booleans(), min_size=1, max_size=7).filter(any)
rate = st.floats(0, 1, exclude_max=True)


def _draws(dropper, present, n):
    return Counter(tuple(dropper(present).tolist()) for _ in range(n))


def _p_value(counts, probabilities, n):
    assert set(counts) <= {k for k, p in probabilities.items() if p > 0}
    keys = [k for k, p in probabilities.items() if p > 0]
    return scipy.stats.chisquare([counts[k] for k in keys], [n * probabilities[k] for k in keys]).pvalue


@pytest.mark.parametrize("present", [(True,) * 4, (True, False, True, True), (False, True, True)])
def test_default_is_uniform_over_the_non_empty_subsets(present):
    n = 4000
    counts = _draws(RandModalityDropout().set_random_state(0), present, n)
    subsets = [s for s in product((False, True), repeat=len(present)) if any(s)]
    subsets = [s for s in subsets if all(p or not k for k, p in zip(s, present, strict=True))]
    assert _p_value(counts, {s: 1 / len(subsets) for s in subsets}, n) > 1e-3


@pytest.mark.parametrize(
    "rates",
    [
        {"flair": 0.2, "t1ce": 0.4, "t1": 0.6, "t2": 0.8},
        dict.fromkeys(NAMES, 0.9),
        0.5,
        {**dict.fromkeys(NAMES, 0.5), "t2": 0.0},
    ],
)
def test_rates_are_independent_given_that_something_is_left(rates):
    n = 6000
    counts = _draws(RandModalityDropout(NAMES, rates).set_random_state(1), [True] * 4, n)
    values = [rates[m] for m in NAMES] if isinstance(rates, dict) else [rates] * 4
    joint = {
        s: float(np.prod([1 - r if k else r for k, r in zip(s, values, strict=True)]))
        for s in product((False, True), repeat=4)
        if any(s)
    }
    total = sum(joint.values())
    assert _p_value(counts, {s: p / total for s, p in joint.items()}, n) > 1e-3


def test_rates_follow_names_not_positions():
    rates = {"flair": 0.0, "t1ce": 0.9, "t1": 0.9, "t2": 0.9}
    dropper = RandModalityDropout(NAMES[::-1], rates).set_random_state(0)
    assert all(bool(dropper([True] * 4)[3]) for _ in range(50))


@given(present=present_masks, seed=st.integers(0, 2**31), rates=st.none() | rate, prob=st.floats(0, 1))
def test_never_empty_and_never_more_than_present(present, seed, rates, prob):
    mask = RandModalityDropout(rates=rates, prob=prob).set_random_state(seed)(present)
    assert mask.dtype == torch.bool
    assert mask.any()
    assert not (mask & ~torch.tensor(present)).any()


@given(st.lists(st.tuples(rate, st.floats(0, 1, exclude_max=True)), min_size=1, max_size=8))
def test_conditional_draw_keeps_at_least_one(pairs):
    rates, uniforms = zip(*pairs, strict=True)
    kept = keep_non_empty(rates, uniforms)
    assert any(kept)
    assert all(k for k, r in zip(kept, rates, strict=True) if r == 0)


@settings(max_examples=25)
@given(seed=st.integers(0, 2**31), prob=st.sampled_from([0.0, 0.5, 1.0]))
def test_same_seed_same_masks(seed, prob):
    a, b = (RandModalityDropout(prob=prob).set_random_state(seed) for _ in range(2))
    assert [a([True] * 4).tolist() for _ in range(5)] == [b([True] * 4).tolist() for _ in range(5)]


def test_numpy_global_state_has_no_influence():
    first = RandModalityDropout().set_random_state(3)
    np.random.seed(1)  # noqa: NPY002 (the point of the test)
    masks = [first([True] * 4).tolist() for _ in range(8)]
    second = RandModalityDropout().set_random_state(3)
    np.random.seed(2)  # noqa: NPY002
    assert [second([True] * 4).tolist() for _ in range(8)] == masks


def test_prob_zero_hides_nothing():
    dropper = RandModalityDropout(prob=0.0).set_random_state(0)
    assert all(dropper([True, False, True]).tolist() == [True, False, True] for _ in range(20))


def test_dictionary_version_writes_the_mask_and_nothing_else():
    image = torch.rand(4, 2, 2)
    present = torch.tensor([True, True, False, True])
    item = {"image": image.clone(), "present_mask": present, "modality_mask": present.clone(), "case_id": "a"}
    transform = Compose([RandModalityDropoutd(modalities=NAMES)]).set_random_state(0)
    seen = set()
    for _ in range(30):
        out = transform(item)
        assert torch.equal(out["image"], image)
        assert torch.equal(out["present_mask"], present)
        assert set(out) == set(item)
        seen.add(tuple(out["modality_mask"].tolist()))
    assert len(seen) == 7
    assert torch.equal(item["modality_mask"], present)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rates": 1.0}, "must lie in"),
        ({"rates": {"flair": 0.1}}, "need the modalities"),
        ({"modalities": NAMES, "rates": {"flair": 0.1}}, "have none"),
        ({"modalities": NAMES, "rates": {**dict.fromkeys(NAMES, 0.1), "adc": 0.1}}, "unknown modalities"),
    ],
)
def test_ill_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        RandModalityDropout(**arguments)


@pytest.mark.parametrize("present", [[False, False], [True] * 3])
def test_ill_present_masks(present):
    with pytest.raises(ValueError, match="present"):
        RandModalityDropout(NAMES)(present)
