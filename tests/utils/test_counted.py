"""Counts in sentences agree with their nouns, also in what is printed for a single case."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from medmap_monai.utils.counted import are, counted

PACKAGE = Path(__file__).resolve().parents[2] / "medmap_monai"
THINGS = "studies|cases|files|bundles|patients|rows|images|subsets"
#: a count and its plural written out: wrong for one
FIXED = re.compile(rf"%d (?:{THINGS})\b|\{{len\([^{{}}]*\)\}} (?:{THINGS})\b|\bcase\(s\)|\bfile\(s\)|\bpatient\(s\)")
#: more than one, by what was asked before
PLURAL = {
    "clinical/choose.py": 2,
    "clinical/dicom_series.py": 1,
    "data/evaluation_records.py": 1,
    "data/study_of_file.py": 1,
    "data/studies.py": 1,
}


@pytest.mark.parametrize(
    ("number", "expected"), [(0, "0 studies are"), (1, "1 study is"), (2, "2 studies are"), (1234, "1234 studies are")]
)
def test_noun_and_verb_agree(number: int, expected: str) -> None:
    assert f"{counted(number, 'study')} {are(number)}" == expected
    assert counted(number, "study is", "studies are") == expected


def test_no_count_is_written_beside_a_fixed_plural() -> None:
    found = {
        str(file.relative_to(PACKAGE)): len(hits)
        for file in sorted(PACKAGE.rglob("*.py"))
        if (hits := FIXED.findall(file.read_text(encoding="utf-8")))
    }
    assert found == PLURAL
