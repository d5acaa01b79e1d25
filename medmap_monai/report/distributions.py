"""Distribution over cases of one metric, subset by subset."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medmap_monai.report.display import metric_display
from medmap_monai.report.figure_style import INK, SERIES, figure_style
from medmap_monai.report.runs import EvaluationRun
from medmap_monai.report.subset_axis import draw_subset_axis, subset_axis_height
from medmap_monai.utils.counted import counted

_PANEL = 1.75


def distribution_figure(run: EvaluationRun, metric: str) -> Figure:
    """One panel per region; per subset a box (quartiles, whiskers to 1.5 box lengths) and every case as a point."""
    shown = metric_display(metric)
    below = subset_axis_height(run.modalities)
    count = len(run.regions)
    width = 1.1 + 0.56 * len(run.subsets)
    step = _PANEL + 0.42
    total = step * count + below + 0.05
    with figure_style():
        figure = plt.figure(figsize=(width, total))
        for i, region in enumerate(run.regions):
            bottom = (total - step * (i + 1) + 0.1) / total
            axes = figure.add_axes((0.85 / width, bottom, (width - 0.95) / width, _PANEL / total))
            _panel(axes, run, metric, region, SERIES[i % len(SERIES)])
            axes.set_title(f"{region}, n = {_cases(run, metric, region)}")
            axes.set_ylabel(f"{shown.title} ({shown.unit})")
            if i == count - 1:
                draw_subset_axis(axes, run.subsets, run.modalities, _PANEL)
            else:
                axes.set_xticks(range(len(run.subsets)), [""] * len(run.subsets))
                axes.tick_params(axis="x", length=0)
    return figure


def _panel(axes: Axes, run: EvaluationRun, metric: str, region: str, colour: str) -> None:
    scale = metric_display(metric).scale
    table = run.table[(run.table["metric"] == metric) & (run.table["region"] == region)]
    rng = np.random.default_rng(0)  # spread of the points only
    for x, subset in enumerate(run.subsets):
        values = table.loc[table["subset"] == subset, "value"].dropna().to_numpy() * scale
        if not values.size:
            continue
        axes.boxplot(
            values,
            positions=[x],
            widths=0.62,
            showfliers=False,
            patch_artist=True,
            boxprops={"facecolor": colour, "alpha": 0.22, "edgecolor": colour},
            medianprops={"color": INK, "linewidth": 1.6},
            whiskerprops={"color": colour},
            capprops={"color": colour},
            manage_ticks=False,
        )
        jitter = rng.uniform(-0.2, 0.2, values.size)
        axes.scatter(
            x + jitter, values, s=7, color=colour, alpha=0.65, linewidths=0, zorder=3, rasterized=len(values) > 60
        )
    axes.set_xlim(-0.6, len(run.subsets) - 0.4)
    axes.grid(axis="y", color="#e3e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    if metric_display(metric).unit == "%":
        axes.set_ylim(-3, 103)
    else:
        axes.set_ylim(bottom=0)


def _cases(run: EvaluationRun, metric: str, region: str) -> str:
    """``20 cases``, or the range where subsets differ."""
    counts = sorted({e["n"] for s in run.subsets if (e := run.score(metric, region, s)) is not None})
    if not counts:
        return "0 cases"
    return counted(counts[0], "case") if len(counts) == 1 else f"{counts[0]} to {counts[-1]} cases"
