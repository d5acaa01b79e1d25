"""The table in the papers' layout: columns = subsets as filled and empty dots, rows = regions, last column average."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import NamedTuple

from medmap_monai.modalities import Modalities
from medmap_monai.report.display import (
    NOTHING,
    metric_display,
    modality_label,
    number,
    subset_dots,
    subset_label,
)
from medmap_monai.report.runs import EvaluationRun

_DIGITS = 2


class Cell(NamedTuple):
    """``text`` in the unit of the table, ``value`` as stored, ``n`` cases, whether it is the best of the runs."""

    text: str
    value: float | None
    n: int
    best: bool


class Row(NamedTuple):
    """One region of one run; ``cells`` in the order of the subsets, ``average`` last."""

    region: str
    run: str
    cells: list[Cell]
    average: Cell


class MainTable(NamedTuple):
    """The table of one metric over all runs."""

    metric: str
    title: str
    unit: str
    modalities: Modalities
    subsets: tuple[str, ...]
    rows: list[Row]

    @property
    def dots(self) -> dict[str, list[bool]]:
        """Modality -> one flag per column."""
        flags = [subset_dots(subset, self.modalities) for subset in self.subsets]
        return {name: [f[i] for f in flags] for i, name in enumerate(self.modalities)}


def main_table(runs: Sequence[EvaluationRun], metric: str) -> MainTable:
    """The table of ``metric``; of several runs each region has one row per run, the best value marked."""
    shown = metric_display(metric)
    first = runs[0]
    rows = []
    for region in first.regions:
        columns = [*first.subsets, None]
        values = {(run.name, subset): _value(run, metric, region, subset) for run in runs for subset in columns}
        for run in runs:
            cells = []
            for subset in columns:
                value, n = values[run.name, subset]
                rivals = [v for v, _ in (values[other.name, subset] for other in runs) if v is not None]
                best = value is not None and max(rivals) > min(rivals)  # of equals none is best
                best = best and value == (max(rivals) if shown.higher_is_better else min(rivals))
                cells.append(Cell(number(value, metric, _DIGITS), value, n, best))
            rows.append(Row(region, run.name, cells[:-1], cells[-1]))
    return MainTable(metric, shown.title, shown.unit, first.modalities, first.subsets, rows)


def _value(run: EvaluationRun, metric: str, region: str, subset: str | None) -> tuple[float | None, int]:
    entry = run.average(metric, region) if subset is None else run.score(metric, region, subset)
    return (None, 0) if entry is None else (entry["mean"], entry["n"])


def table_csv(table: MainTable) -> str:
    """The table as CSV: one column per subset, values in the unit that the first line names."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["region", "run", "metric", "unit", *table.subsets, "average"])
    for row in table.rows:
        cells = [c.text.replace("\N{MINUS SIGN}", "-").replace(NOTHING, "") for c in [*row.cells, row.average]]
        writer.writerow([row.region, row.run, table.metric, table.unit, *cells])
    return text.getvalue()


def table_latex(table: MainTable, synthetic: bool = False) -> str:
    """The table as LaTeX (package ``booktabs``), best values bold."""
    several = len({row.run for row in table.rows}) > 1
    columns = "l" + ("l" if several else "") + "c" * len(table.subsets) + "c"
    lead = 2 if several else 1
    lines = [r"% requires \usepackage{booktabs}", rf"\begin{{tabular}}{{{columns}}}", r"\toprule"]
    for name, flags in table.dots.items():
        dots = " & ".join(r"$\bullet$" if flag else r"$\circ$" for flag in flags)
        lines.append(rf"\multicolumn{{{lead}}}{{l}}{{{_tex(modality_label(name))}}} & {dots} & \\")
    lines.append(r"\midrule")
    previous = None
    for row in table.rows:
        if several and previous not in (None, row.region):
            lines.append(r"\addlinespace")
        cells = [rf"\textbf{{{_tex(c.text)}}}" if c.best else _tex(c.text) for c in [*row.cells, row.average]]
        names = [_tex(row.region) if row.region != previous else ""] + ([_tex(row.run)] if several else [])
        lines.append(" & ".join([*names, *cells]) + r" \\")
        previous = row.region
    lines += [r"\bottomrule", r"\end{tabular}"]
    note = f"{table.title} in {table.unit}; columns: {', '.join(subset_label(s) for s in table.subsets)}, average"
    lines.append(f"% {note}" + ("; SYNTHETIC phantom data" if synthetic else ""))
    return "\n".join(lines) + "\n"


def _tex(text: str) -> str:
    text = text.replace("\\", r"\textbackslash{}")
    for sign in "&%_#$":
        text = text.replace(sign, "\\" + sign)
    text = text.replace("^", r"\textasciicircum{}").replace("~", r"\textasciitilde{}")
    return text.replace("\N{MINUS SIGN}", "$-$").replace(NOTHING, "--")
