"""Runs compared pair by pair on the cases that both evaluated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import pandas as pd

from medmap_monai.metrics.paired_tests import PairedTest, holm, paired_test
from medmap_monai.metrics.summary import case_means
from medmap_monai.report.runs import EvaluationRun

SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Comparison:
    """Second run minus first run in one region, by the cases' means over all subsets; a subset for which one of the
    two has no value (``hd95_empty: nan``) is left out of both means of that case.

    ``adjusted`` is the p-value after Holm's correction over all regions and pairs of the same metric; ``test`` is None
    where the two runs share no case.
    """

    first: str
    second: str
    metric: str
    region: str
    test: PairedTest | None
    adjusted: float | None = None

    @property
    def significant(self) -> bool:
        """Whether the adjusted p-value is below 0.05."""
        return self.adjusted is not None and self.adjusted < SIGNIFICANT


def compare_runs(runs: Sequence[EvaluationRun], metric: str) -> list[Comparison]:
    """Every pair of runs in every region, Wilcoxon signed-rank tests with Holm's correction."""
    found = []
    for first, second in combinations(runs, 2):
        for region in first.regions:
            found.append(Comparison(first.name, second.name, metric, region, _test(first, second, metric, region)))
    adjusted = holm([None if c.test is None else c.test.p for c in found])
    return [replace(c, adjusted=p) for c, p in zip(found, adjusted, strict=True)]


def _test(first: EvaluationRun, second: EvaluationRun, metric: str, region: str) -> PairedTest | None:
    blocks, complete = [], []
    for run in (first, second):
        block = run.table[(run.table["metric"] == metric) & (run.table["region"] == region)]
        complete.append(case_means(block, len(run.subsets)).index)
        blocks.append(block.set_index(["case_id", "subset"])["value"])
    cells = pd.concat(blocks, axis=1, keys=("first", "second"), join="inner").dropna()
    cases = cells.index.get_level_values("case_id")
    means = cells[cases.isin(complete[0]) & cases.isin(complete[1])].groupby("case_id", sort=True).mean()
    if means.empty:
        return None
    return paired_test(means["first"].to_numpy(), means["second"].to_numpy())
