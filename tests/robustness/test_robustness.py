"""A share of the campaign: mutated headers, damaged studies among good ones, and runs that are killed."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.robustness.damage import kinds
from tests.robustness.headers import mutated_headers
from tests.robustness.killed import killed_runs, predict_run
from tests.robustness.studies import run_among_good_ones

_EVERY = 3


def test_mutated_headers_are_refused_or_read_as_they_are(tmp_path: Path) -> None:
    outcomes, wrong = mutated_headers(tmp_path, 60)
    assert wrong == []
    assert outcomes["refused"] > 5
    assert outcomes["read"] > 5


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_damaged_studies_are_refused_by_name_and_the_good_ones_done(
    command: str, small_bundle: Callable[[Path], Path], phantom_cohort: Path, tmp_path: Path
) -> None:
    outcomes, wrong = run_among_good_ones(command, small_bundle(tmp_path), phantom_cohort, tmp_path, _EVERY)
    assert wrong == []
    assert outcomes == {"damaged, refused by name": len(list(kinds())[::_EVERY]), "good, done": 2}


def test_kinds_of_damage_have_names_of_their_own_and_the_page_counts_them() -> None:
    names = [name for name, _ in kinds()]
    assert len(names) == len(set(names)) == 138
    page = (REPOSITORY / "docs/reference/robustness.md").read_text(encoding="utf-8")
    counts = [int(count) for count in re.findall(r"^\| [a-z ]+ \| (\d+) \|", page, flags=re.MULTILINE)]
    assert (len(counts), sum(counts)) == (5, len(names))
    assert f"{len(names)} kinds of damaged study" in page


def test_a_killed_run_is_completed_by_starting_it_again(
    small_bundle: Callable[[Path], Path], phantom_cohort: Path, tmp_path: Path
) -> None:
    (tmp_path / "runs").mkdir()
    run, result = predict_run(small_bundle(tmp_path), phantom_cohort)
    outcomes, wrong = killed_runs(run, result, tmp_path / "runs", moments=1)
    assert wrong == []
    assert outcomes["completed by starting again"] == 1
