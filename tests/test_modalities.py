from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medmap_monai.modalities import BRATS, MYOPS, Modalities

NAMES = st.lists(st.text("abcdefgh123_", min_size=1, max_size=5), min_size=1, max_size=6, unique=True)

# published ids of the split files, mask order FLAIR, T1ce, T1, T2
PUBLISHED = {
    0: (0, 0, 0, 1),
    3: (1, 0, 0, 0),
    6: (1, 0, 1, 0),
    9: (1, 1, 0, 0),
    13: (0, 1, 1, 1),
    14: (1, 1, 1, 1),
}


@pytest.mark.parametrize(("number", "mask"), PUBLISHED.items())
def test_published_ids(number: int, mask: tuple[int, ...]) -> None:
    flags = tuple(map(bool, mask))
    assert BRATS.subset_id(flags) == number
    assert BRATS.subset_masks()[number] == flags


def test_published_ids_follow_names_and_not_positions() -> None:
    turned = Modalities(("t2", "t1", "t1ce", "flair"))
    for number, subset in enumerate(BRATS.subsets()):
        assert set(turned.subsets()[number]) == set(subset)


@given(NAMES)
def test_subsets_masks_ids_and_names_agree(names: list[str]) -> None:
    modalities = Modalities(tuple(names))
    subsets = modalities.subsets()
    assert len(subsets) == len({frozenset(s) for s in subsets}) == 2 ** len(names) - 1
    for number, mask in enumerate(modalities.subset_masks()):
        assert any(mask)
        assert modalities.subset_id(mask) == number
        assert modalities.select(mask) == subsets[number]
        assert modalities.mask(modalities.subset_name(mask)) == mask


def test_other_sets_are_ordered_by_size() -> None:
    assert [len(s) for s in MYOPS.subsets()] == [1, 1, 1, 2, 2, 2, 3]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "at least one"),
        (("a", "a"), "unique"),
        (("a", ""), "non-empty"),
        (("a+b",), "without"),
        ("flair", "list of names"),
    ],
)
def test_bad_names(names: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Modalities(names)


def test_bad_masks_and_names() -> None:
    with pytest.raises(ValueError, match=r"unknown modalities \['t9'\]; allowed"):
        BRATS.mask(["t9"])
    with pytest.raises(ValueError, match="3 entries, 4 modalities"):
        BRATS.select((True, True, False))
    for ask in (BRATS.subset_name, BRATS.subset_id):
        with pytest.raises(ValueError, match="empty subset"):
            ask((False,) * 4)
