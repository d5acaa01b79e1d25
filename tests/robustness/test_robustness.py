"""Mutated headers, seeded: each file is refused by name, or read as nibabel reads it."""

from __future__ import annotations

from pathlib import Path

from tests.robustness.headers import mutated_headers


def test_mutated_headers_are_refused_or_read_as_they_are(tmp_path: Path) -> None:
    outcomes, wrong = mutated_headers(tmp_path, 60)
    assert wrong == []
    assert outcomes["refused"] > 5
    assert outcomes["read"] > 5
