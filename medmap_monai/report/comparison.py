"""Runs compared pair by pair on the cases that both evaluated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from medmap_monai.metrics.paired_tests import PairedTest, holm, paired_test
from medmap_monai.metrics.summary import case_means
from medmap_monai.report.runs import EvaluationRun

SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Comparison:
    """Second run minus first run in one region, by the cases' means over all subsets.

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
    means = []
    for run in (first, second):
        block = run.table[(run.table["metric"] == metric) & (run.table["region"] == region)]
        means.append(case_means(block, len(run.subsets)))
    shared = means[0].index.intersection(means[1].index).sort_values()
    one, two = means[0][shared].to_numpy(), means[1][shared].to_numpy()
    if not ((one == one) & (two == two)).any():
        return None
    return paired_test(one, two)
