"""The edition table: consistent entries, label maps both ways, user-defined editions."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from medmap_monai.data.edition import Edition
from medmap_monai.data.editions import EDITIONS, get_edition
from medmap_monai.modalities import BRATS


@pytest.mark.parametrize("edition", EDITIONS.values(), ids=str)
def test_entries_are_consistent(edition: Edition) -> None:
    assert edition.labels[0] == 0
    assert sorted(edition.labels.values()) == list(range(len(edition.classes)))
    for index, value in edition.disk_values.items():
        assert edition.labels[value] == index
    for classes in edition.regions.values():
        assert classes
        assert set(classes) <= set(range(1, len(edition.classes)))
    assert set(edition.rate_order) == set(edition.modalities)


@pytest.mark.parametrize(
    ("name", "labels", "region", "classes"),
    [
        ("brats2018", {1: 1, 2: 2, 4: 3}, "WT", (1, 2, 3)),
        ("brats2021", {1: 1, 2: 2, 4: 3}, "TC", (1, 3)),
        ("brats2023", {1: 1, 2: 2, 3: 3}, "ET", (3,)),
        ("brats2024-post", {1: 1, 2: 2, 3: 3, 4: 4}, "ET", (3,)),  # the cavity is no enhancing tumour
        ("msd_task01", {1: 2, 2: 1, 3: 3}, "TC", (1, 3)),
        ("myops2020", {200: 1, 500: 2, 600: 3, 1220: 4, 2221: 5}, "MYO", (1, 4, 5)),
    ],
)
def test_label_values_and_regions(name: str, labels: dict[int, int], region: str, classes: tuple[int, ...]) -> None:
    edition = get_edition(name)
    assert edition.labels == {0: 0, **labels}
    assert edition.regions[region] == classes


def test_resection_cavity_is_in_no_tumour_region() -> None:
    edition = get_edition("brats2024-post")
    assert [name for name, classes in edition.regions.items() if 4 in classes] == ["RC"]


def test_rate_orders_of_the_published_combinations() -> None:
    assert get_edition("brats2020").rate_order == ("t1", "t1ce", "flair", "t2")
    assert get_edition("myops2020").rate_order == ("bssfp", "lge", "t2")


def test_get_edition() -> None:
    edition = get_edition("BraTS2020")
    assert edition.name == "brats2020"
    assert get_edition(edition) is edition
    with pytest.raises(ValueError, match=r"'nope'.*brats2018.*brats2024-post.*myops2020.*generic.*Edition object"):
        get_edition("nope")


def test_with_labels() -> None:
    mine = get_edition("brain-metastases").with_labels({0: 0, 1: 3, 5: 3}, regions={"ET": (3,)})
    assert mine.labels == {0: 0, 1: 3, 5: 3}
    assert mine.disk_values == {0: 0, 3: 1}  # the first value of a class is the one to write
    assert mine.regions == {"ET": (3,)}
    assert get_edition("brain-metastases").labels != mine.labels


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"suffixes": {"flair": "_flair"}}, "suffixes are given for"),
        ({"labels": {0: 0, 9: 9}}, "beyond"),
        ({"rate_order": ("t1",)}, "rate_order"),
    ],
)
def test_contradictions_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(get_edition("brats2020"), **change)  # type: ignore[arg-type]


def test_two_dimensional_tasks() -> None:
    assert get_edition("myops2020").spatial_dims == 2
    assert get_edition("brats2020").spatial_dims == 3


def test_table_is_free_of_torch() -> None:
    code = "import sys, medmap_monai.data.editions; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_channel_order_is_the_default_order() -> None:
    assert get_edition("brats2023").modalities == BRATS
