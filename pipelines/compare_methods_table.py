"""Tables and figures of a comparison: fills the marked blocks of its pages in ``docs/results`` from the runs.

    python pipelines/compare_methods_table.py --runs runs/compare

What the runs measured is added to the plan's records (``docs/results/phantom_records``) first, from which its pages
(``docs/results/phantom*.md``) are filled; so a run that was made once, on whatever machine, stays in the tables. What
stands between ``<!-- KIND: SUITE -->`` and ``<!-- end -->`` is replaced; KIND is ``scores``, ``differences``,
``distances``, ``subsets``, ``gap``, ``example`` or ``figure``. The words around
the blocks are written by people. Runs that are not finished are left out, and the tables say of how many seeds they
speak.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from textwrap import fill as fill_text
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from medmap_monai.metrics.bootstrap import bootstrap_interval
from medmap_monai.recipes.comparison_plan import load_plan
from medmap_monai.recipes.comparison_records import ComparisonRecords, read_records, read_runs, write_records
from medmap_monai.report.figure_style import figure_style, save_figure
from medmap_monai.utils.class_colours import BLUE, INK

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"
PLAN = Path(__file__).with_name("compare_methods.json")
_BLOCK = re.compile(r"<!-- (?P<kind>\w+): (?P<suite>\w+) -->\n.*?<!-- end -->", re.DOTALL)


class Difference(NamedTuple):
    """Second minus first method in Dice points: per seed, and a 95 % bootstrap interval over test cases."""

    by_seed: list[float]
    interval: tuple[float, float] | None

    @property
    def mean(self) -> float:
        return float(np.mean(self.by_seed))


class Results:
    """Dice (%) and modality gaps of the runs of a comparison.

    Args:
        records: what was measured.
        plan: content of ``compare_methods.json``.

    Raises:
        ValueError: when there is no run at all, or runs were scored on different test cases.
    """

    def __init__(self, records: ComparisonRecords, plan: dict[str, Any]) -> None:
        if records.scores.empty:
            raise ValueError("no finished run; run pipelines/compare_methods.py first")
        self.plan = plan
        self.table = records.dice()
        check_same_cases(self.table)
        self.distances = records.hd95()
        self.examples = records.examples()
        self.measured_gap = records.gap
        self.regions = list(dict.fromkeys(self.table["region"]))
        self.runs = dict(iter(self.table.groupby("variant")))

    def seeds(self, *variants: str) -> list[int]:
        """Seeds with which all of these variants are finished."""
        found = [set(self.runs[v]["seed"]) if v in self.runs else set() for v in variants]
        return sorted(set.intersection(*found)) if found else []

    def inside(self, table: pd.DataFrame, group: dict[str, Any]) -> pd.DataFrame:
        """The rows of one group of subsets, see ``groups`` of the plan."""
        keep = table["modalities"] >= group.get("at_least", 1)
        if "at_most" in group:
            keep &= table["modalities"] <= group["at_most"]
        if "of" in group:
            keep &= table["subset"].map(lambda name: set(name.split("+")) <= set(group["of"]))
        return table[keep]

    def means(self, variant: str, group: dict[str, Any], regions: Sequence[str]) -> list[float]:
        """Mean over cases, subsets and regions, one number per seed."""
        table = self.inside(self.runs[variant], group)
        return table[table["region"].isin(regions)].groupby("seed")["dice"].mean().sort_index().tolist()

    def difference(self, first: str, second: str, group: dict[str, Any]) -> Difference:
        """Paired by seed and case, mean over the group's subsets and all regions."""
        seeds = self.seeds(first, second)
        per_case = {}
        for variant in (first, second):
            table = self.runs[variant][self.runs[variant]["seed"].isin(seeds)]
            per_case[variant] = self.inside(table, group).groupby(["seed", "case_id"])["dice"].mean().sort_index()
        gain = (per_case[second] - per_case[first]).unstack("seed")
        return Difference(gain.mean(axis=0).tolist(), bootstrap_interval(gain.mean(axis=1).to_numpy()))


def check_same_cases(table: pd.DataFrame) -> None:
    """ValueError unless every run was scored on the same test cases: means over other cases cannot be compared."""
    cases = table.groupby(["variant", "seed"])["case_id"].agg(frozenset).to_dict()
    usual = Counter(cases.values()).most_common(1)[0][0]
    for (variant, seed), own in cases.items():
        if own != usual:
            raise ValueError(
                f"{variant} seed {seed} was scored on other test cases than most runs ({len(own & usual)} of its "
                f"{len(own)} are among their {len(usual)}): score it on those, or all of them on its own"
            )


def scores(results: Results, suite: dict[str, Any]) -> str:
    """Mean and standard deviation over seeds: regions over all subsets, then groups of subsets over all regions."""
    plan = results.plan
    groups = list(plan["groups"])
    everything = groups[0]
    header = ["method", "seeds", *results.regions, *groups]
    rows = []
    for variant in suite["variants"]:
        seeds = results.seeds(variant)
        if not seeds:
            continue
        cells = [results.means(variant, plan["groups"][everything], [region]) for region in results.regions]
        cells += [results.means(variant, plan["groups"][group], results.regions) for group in groups]
        rows.append([title(plan, variant), str(len(seeds)), *(spread(values) for values in cells)])
    return markdown(header, rows)


def differences(results: Results, suite: dict[str, Any]) -> str:
    """Paired differences of all pairs of the suite, per group of subsets."""
    plan = results.plan
    groups = list(plan["groups"])
    rows = []
    for first, second in suite["pairs"]:
        if not results.seeds(first, second):
            continue
        cells = []
        for group in groups:
            found = results.difference(first, second, plan["groups"][group])
            interval = "" if found.interval is None else f" [{found.interval[0]:+.1f}, {found.interval[1]:+.1f}]"
            by_seed = ", ".join(f"{value:+.1f}" for value in found.by_seed)
            cells.append(f"**{found.mean:+.1f}**{interval}<br>{by_seed}")
        rows.append([f"{title(plan, second)} minus {title(plan, first)}", *cells])
    return markdown(["difference", *groups], rows)


def distances(results: Results, suite: dict[str, Any]) -> str:
    """HD95 (mm) per region over all subsets, and over the complete ones: mean and deviation over seeds."""
    rows = []
    most = results.distances["modalities"].max()
    for variant in suite["variants"]:
        runs = results.distances[results.distances["variant"] == variant]
        if runs.empty:
            continue
        cells = []
        for part in (runs, runs[runs["modalities"] == most]):
            means = part.groupby(["region", "seed"])["hd95"].mean()
            cells += [spread(means[region].tolist()) for region in results.regions]
        rows.append([title(results.plan, variant), str(runs["seed"].nunique()), *cells])
    header = [f"{region}, {which}" for which in ("all", "complete") for region in results.regions]
    return markdown(["HD95 (mm)", "seeds", *header], rows)


def example(results: Results, suite: dict[str, Any]) -> str:
    """Dice of the studies beside the table, which no average contains: over all subsets, and complete."""
    rows = []
    for variant in suite["variants"]:
        runs = results.examples[results.examples["variant"] == variant]
        if runs.empty:
            continue
        cells = []
        for part in (runs, runs[runs["modalities"] == runs["modalities"].max()]):
            means = part.groupby(["region", "seed"])["dice"].mean()
            cells += [spread(means[region].tolist()) for region in results.regions]
        rows.append([title(results.plan, variant), str(runs["seed"].nunique()), *cells])
    studies = ", ".join(sorted(results.examples["case_id"].unique()))
    header = [f"{region}, {which}" for which in ("all", "complete") for region in results.regions]
    return markdown([f"example: {studies}", "seeds", *header], rows)


def subsets(results: Results, suite: dict[str, Any]) -> str:
    """One row per subset, regions separated by slashes; mean over cases and seeds."""
    variants = [v for v in suite["variants"] if results.seeds(v)]
    table = results.table[results.table["variant"].isin(variants)]
    mean = table.groupby(["subset_id", "subset", "region", "variant"])["dice"].mean()
    rows = []
    for (_, name), part in mean.groupby(["subset_id", "subset"]):
        values = part.droplevel(["subset_id", "subset"])
        rows.append([str(name), *(" / ".join(f"{values[r, v]:.0f}" for r in results.regions) for v in variants)])
    return markdown([f"subset ({' / '.join(results.regions)})", *(title(results.plan, v) for v in variants)], rows)


def gap(results: Results, suite: dict[str, Any]) -> str:
    """Modality gap and collapse check of all levels or the suite's ``gap_levels``, mean and deviation over seeds."""
    measures = {
        "cka": "linear CKA",
        "centroid_distance": "centroid distance",
        "voxel_distance": "voxel distance",
        "effective_rank": "effective rank",
        "spatial_sd": "sd",
    }
    rows = []
    for variant in suite["variants"]:
        runs = results.measured_gap[results.measured_gap["variant"] == variant]
        for level, part in runs.groupby("level"):
            if level not in suite.get("gap_levels", [level]):
                continue
            cells = [spread(part[measure].tolist(), 2) for measure in measures]
            rows.append([title(results.plan, variant), str(level), str(len(part)), *cells])
    return markdown(["method", "level", "seeds", *measures.values()], rows)


def figure(results: Results, suite: dict[str, Any], name: str, page: Path) -> str:
    """Dots: mean Dice per seed, one panel per group of subsets; written beside the page's other pictures."""
    plan = results.plan
    variants = [v for v in suite["variants"] if results.seeds(v)]
    groups = list(plan["groups"])
    with figure_style():
        width = 0.6 + 0.07 * max(len(title(plan, v)) for v in variants) + 1.75 * len(groups)
        drawn, axes = plt.subplots(1, len(groups), figsize=(width, 1.1 + 0.34 * len(variants)), sharey=True)
        for panel, group in zip(np.atleast_1d(axes), groups, strict=True):
            for y, variant in enumerate(variants):
                values = results.means(variant, plan["groups"][group], results.regions)
                panel.plot([min(values), max(values)], [y, y], color="#c5ccd3", linewidth=3, zorder=1)
                panel.scatter(values, [y] * len(values), s=18, color=BLUE, zorder=2)
                panel.scatter([np.mean(values)], [y], marker="|", s=130, color=INK, zorder=3)
            panel.set_title(fill_text(group, 14), fontsize=9.5)
            panel.grid(axis="x", color="#e3e7eb")
            panel.set_axisbelow(True)
            panel.tick_params(axis="y", length=0)
            panel.spines["left"].set_visible(False)
        first = np.atleast_1d(axes)[0]
        first.set_yticks(range(len(variants)), [title(plan, v) for v in variants])
        first.set_ylim(len(variants) - 0.5, -0.5)
        drawn.supxlabel("Dice (%), dots: seeds, line: their mean", fontsize=9)
        drawn.tight_layout(w_pad=2.0)
    text = f"{suite['title']}: mean Dice per seed and group of subsets, {plan['protocol']['data_name']}"
    saved = save_figure(drawn, page.parent.parent / "images", f"{plan['results']}_{name}", text)
    return f"![{text}](../images/{saved.png.name})\n"


def title(plan: dict[str, Any], variant: str) -> str:
    return str(plan["variants"][variant]["title"])


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Mean and, of at least two values, their standard deviation."""
    mean = f"{np.mean(values):.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {np.std(values, ddof=1):.{digits}f}"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


TABLES: dict[str, Callable[[Results, dict[str, Any]], str]] = {
    "scores": scores,
    "differences": differences,
    "subsets": subsets,
    "gap": gap,
    "distances": distances,
    "example": example,
}


def fill(page: Path, results: Results, only: Sequence[str] = ()) -> int:
    """Replace the marked blocks of ``page``, of all suites or of those in ``only``; returns how many there were.

    Raises:
        ValueError: when a block names an unknown table or suite, or ``only`` an unknown suite.
    """
    if unknown := sorted(set(only) - set(results.plan["suites"])):
        raise ValueError(f"unknown suites {unknown}; there are {list(results.plan['suites'])}")
    number = 0

    def block(match: re.Match[str]) -> str:
        nonlocal number
        kind, name = match["kind"], match["suite"]
        if name not in results.plan["suites"] or kind not in {*TABLES, "figure"}:
            raise ValueError(
                f"{page}: <!-- {kind}: {name} --> must name one of {sorted([*TABLES, 'figure'])} and one of the suites "
                f"{list(results.plan['suites'])}"
            )
        if only and name not in only:
            return match[0]
        number += 1
        suite = results.plan["suites"][name]
        body = figure(results, suite, name, page) if kind == "figure" else TABLES[kind](results, suite)
        return f"<!-- {kind}: {name} -->\n{body}<!-- end -->"

    text = _BLOCK.sub(block, page.read_text())
    page.write_text(text)
    return number


def main() -> None:
    """Parse the arguments, add the finished runs to the records and fill the pages from the records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs/compare"), help="folder of the comparison")
    parser.add_argument("--plan", type=Path, default=PLAN, help="protocol and variants (JSON)")
    parser.add_argument("--page", type=Path, nargs="+", help="pages to fill (default: those of the plan)")
    parser.add_argument("--records", type=Path, help="what earlier runs measured (default: those of the plan)")
    parser.add_argument("--suites", nargs="*", default=[], help="fill the blocks of these suites only")
    arguments = parser.parse_args()
    plan = load_plan(arguments.plan)
    folder = arguments.records or RESULTS / f"{plan['results']}_records"
    pages = arguments.page or sorted(RESULTS.glob(f"{plan['results']}*.md"))
    records = read_records(folder).updated(read_runs(arguments.runs))
    try:
        results = Results(records, plan)
        numbers = {page: fill(page, results, arguments.suites) for page in pages}
    except ValueError as error:
        raise SystemExit(str(error)) from error
    write_records(records, folder)
    for page, number in numbers.items():
        print(f"{number} blocks of {page} filled")


if __name__ == "__main__":
    main()
