from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import CacheDataset
from monai.transforms import Compose, Randomizable

from medmap_monai.data.splits import SplitRow, write_split
from medmap_monai.data.study import StudyError
from medmap_monai.transforms.imbalanced_dropout import (
    ImbalancedModalityDropout,
    ImbalancedModalityDropoutd,
    case_uniform,
    zero_channels,
)

NAMES = ("flair", "t1ce", "t1", "t2")
RATES = {"t1": 0.2, "t1ce": 0.4, "flair": 0.6, "t2": 0.8}
ALL = [True] * 4


def test_hash_is_the_same_on_every_platform():
    # written down once; a change would silently give every study another subset
    assert case_uniform(0, "BraTS20_Training_001", "flair") == 0.6180518704612487
    assert [ImbalancedModalityDropout(NAMES, rates=RATES, seed=7).mask(f"case{i}", ALL) for i in range(4)] == [
        (False, False, True, True),
        (False, True, True, False),
        (True, True, True, True),
        (False, False, True, False),
    ]


def test_realised_rates_are_those_conditioned_on_non_empty():
    dropper = ImbalancedModalityDropout(NAMES, rates=RATES, seed=1)
    n = 4000
    present = np.mean([dropper.mask(f"c{i}", ALL) for i in range(n)], axis=0)
    empty = np.prod(list(RATES.values()))
    expected = [(1 - RATES[m]) / (1 - empty) for m in NAMES]
    np.testing.assert_allclose(present, expected, atol=3 * 0.5 / np.sqrt(n))


def test_depends_on_names_not_on_their_order():
    forward = ImbalancedModalityDropout(NAMES, rates=RATES, seed=1)
    backward = ImbalancedModalityDropout(NAMES[::-1], rates=RATES, seed=1)
    for i in range(40):
        assert forward.mask(f"c{i}", ALL) == backward.mask(f"c{i}", ALL)[::-1]


@settings(max_examples=60)
@given(
    present=st.lists(st.booleans(), min_size=4, max_size=4).filter(any),
    rates=st.lists(st.floats(0, 1, exclude_max=True), min_size=4, max_size=4),
    seed=st.integers(0, 2**63),
    case=st.text(max_size=20),
)
def test_never_empty_and_never_more_than_present(present, rates, seed, case):
    dropper = ImbalancedModalityDropout(NAMES, rates=dict(zip(NAMES, rates, strict=True)), seed=seed)
    mask = dropper.mask(case, present)
    assert any(mask)
    assert all(p or not m for m, p in zip(mask, present, strict=True))
    assert mask == dropper.mask(case, present)


def test_subsets_by_case_zero_the_channels_and_set_both_masks():
    dropper = ImbalancedModalityDropoutd("image", modalities=NAMES, subsets={"a": ["t1", "flair"], "b": "t2+t1ce"})
    image = torch.rand(4, 3, 3) + 1
    image[1] = float("nan")
    for case, expected in (("a", [True, False, True, False]), ("b", [False, True, False, True])):
        item = {"image": image, "present_mask": torch.tensor(ALL), "modality_mask": torch.tensor(ALL), "case_id": case}
        out = dropper(item)
        assert out["present_mask"].tolist() == out["modality_mask"].tolist() == expected
        mask = torch.tensor(expected)
        assert torch.equal(out["image"][mask].nan_to_num(), image[mask].nan_to_num())
        assert (out["image"][~mask] == 0).all()
        assert item["present_mask"].all()
    assert image[0].all()


def test_subsets_come_from_a_split_file(tmp_path):
    path = tmp_path / "split.csv"
    write_split(path, [SplitRow("a", available=("t2", "t1")), SplitRow("b")])
    dropper = ImbalancedModalityDropout(NAMES, subsets=path)
    assert dropper.mask("a", ALL) == (False, False, True, True)
    assert dropper.mask("b", ALL) == (True, True, True, True)


def test_available_entry_is_granted_and_consumed():
    item = {"image": torch.ones(4, 2), "present_mask": torch.tensor(ALL), "case_id": "a", "available": ("t2",)}
    out = ImbalancedModalityDropoutd("image", modalities=NAMES)(item)
    assert out["present_mask"].tolist() == [False, False, False, True]
    assert "available" not in out


def test_is_deterministic_and_therefore_cached():
    transform = ImbalancedModalityDropoutd("image", modalities=NAMES, rates=RATES)
    assert not isinstance(transform, Randomizable)
    data = [{"image": torch.ones(4, 2), "present_mask": torch.tensor(ALL), "case_id": str(i)} for i in range(3)]
    cached = CacheDataset(data, Compose([transform]), progress=False)
    assert cached[0]["present_mask"] is cached[0]["present_mask"]  # the cached object itself: nothing was drawn anew


def test_errors_name_the_case():
    with pytest.raises(StudyError, match="case b: is not in the split"):
        ImbalancedModalityDropout(NAMES, subsets={"a": ["t1"]}).mask("b", ALL)
    with pytest.raises(StudyError, match="case a: none of its modalities is left"):
        ImbalancedModalityDropout(NAMES, subsets={"a": ["t1"]}).mask("a", [True, True, False, True])
    with pytest.raises(ValueError, match="unknown modalities"):
        ImbalancedModalityDropout(NAMES, subsets={"a": ["adc"]})
    with pytest.raises(ValueError, match="not both"):
        ImbalancedModalityDropout(NAMES, subsets={}, rates=0.5)
    with pytest.raises(ValueError, match="must lie in"):
        ImbalancedModalityDropout(NAMES, rates=1.0)


def test_zero_channels_copies_only_when_it_must():
    image = torch.ones(2, 3)
    assert zero_channels(image, torch.tensor([True, True])) is image
    assert zero_channels(image, torch.tensor([False, True]))[0].sum() == 0
    assert image.all()
