"""Heat map of one metric: subsets by regions."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from medmap_monai.report.display import metric_display, number
from medmap_monai.report.figure_style import cell_colour, figure_style
from medmap_monai.report.runs import EvaluationRun
from medmap_monai.report.subset_axis import draw_subset_axis, subset_axis_height
from medmap_monai.utils.counted import counted

_CELL = 0.36
_LEAST_SPAN, _LEAST_SPAN_MM = 0.1, 5.0


def heat_map_figure(run: EvaluationRun, metric: str) -> Figure:
    """Means over cases, one row per region and one column per subset; dark is good."""
    shown = metric_display(metric)
    shares = colour_shares(run, metric)
    height = _CELL * len(run.regions)
    below = subset_axis_height(run.modalities)
    width = 1.0 + 0.52 * len(run.subsets)
    with figure_style():
        figure = plt.figure(figsize=(width, height + below + 0.45))
        total = height + below + 0.45
        axes = figure.add_axes((0.9 / width, below / total, (width - 1.0) / width, height / total))
        for y, region in enumerate(run.regions):
            means = run.means(metric, region)
            for x, subset in enumerate(run.subsets):
                share = shares.get((region, subset))
                back, ink = cell_colour(share) if share is not None else ("#eeeeee", "#777777")
                axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=back, edgecolor="white", linewidth=1))
                axes.text(x, y, number(means.get(subset), metric), ha="center", va="center", color=ink, fontsize=8.5)
        axes.set_xlim(-0.5, len(run.subsets) - 0.5)
        axes.set_ylim(len(run.regions) - 0.5, -0.5)
        axes.set_yticks(range(len(run.regions)), run.regions)
        axes.tick_params(axis="y", length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        draw_subset_axis(axes, run.subsets, run.modalities, height)
        cases = run.summary["n_cases"]
        axes.set_title(f"{run.name}: mean {shown.title} ({shown.unit}), n = {counted(cases, 'case')}")
    return figure


def colour_shares(run: EvaluationRun, metric: str) -> dict[tuple[str, str], float]:
    """(region, subset) -> 0 (worst) to 1 (best).

    Each region has a scale of its own, from its worst to its best, but never narrower than ten Dice points or 5 mm, so
    that noise does not look like a difference.
    """
    shown = metric_display(metric)
    shares = {}
    for region in run.regions:
        means = run.means(metric, region)
        if not means:
            continue
        low, high = float(np.min(list(means.values()))), float(np.max(list(means.values())))
        for subset, value in means.items():
            span = max(high - low, _LEAST_SPAN_MM if shown.unit == "mm" else _LEAST_SPAN)
            shares[region, subset] = (value - low if shown.higher_is_better else high - value) / span
    return shares
