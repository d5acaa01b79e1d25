"""Every published split file comes out of its case list again, byte for byte (where the files are at hand)."""

from __future__ import annotations

from pathlib import Path

import pytest

from medmap_monai.data.availability import draw_availability
from medmap_monai.data.published_splits import format_passion
from medmap_monai.data.splits import rates_of_combination, read_split

PUBLISHED = Path(__file__).parents[3] / "shared" / "published_splits"
NAMES = [
    *(f"Brats2018_imb_split_mr{name}.csv" for name in ("2468", "1379")),
    *(f"Brats2020_imb_split_mr{name}.csv" for name in ("2468", "1379", "2258", "2285", "5528", "5582", "8825", "8852")),
]


@pytest.mark.golden
@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published files are not part of this repository")
@pytest.mark.parametrize("name", NAMES)
def test_published_file_is_reproduced(name: str) -> None:
    rows = read_split(PUBLISHED / name)
    cases = sorted(row.case_id for row in rows)
    available = draw_availability(len(cases), rates_of_combination(name[-8:-4]), 1037, "passion")
    assert format_passion(cases, available).encode() == (PUBLISHED / name).read_bytes()
