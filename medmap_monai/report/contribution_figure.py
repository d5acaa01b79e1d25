"""Bars of the Shapley contributions of the modalities."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from medmap_monai.report.display import metric_display, modality_label, number
from medmap_monai.report.figure_style import figure_style, modality_colours
from medmap_monai.report.runs import EvaluationRun
from medmap_monai.utils.counted import counted


def contributions(run: EvaluationRun, metric: str) -> dict[str, dict[str, float]]:
    """Region -> modality -> Shapley value; empty where not every subset was evaluated."""
    return {region: dict(values) for region, values in run.summary["contribution"].get(metric, {}).items()}


def contribution_figure(runs: Sequence[EvaluationRun], metric: str) -> Figure:
    """One panel per run, one group of bars per region, one bar per modality."""
    shown = metric_display(metric)
    with figure_style():
        regions = len(runs[0].regions)
        figure, axes = plt.subplots(
            len(runs), 1, figsize=(1.5 + 1.75 * regions, 2.3 * len(runs)), squeeze=False, layout="constrained"
        )
        for row, run in enumerate(runs):
            panel = axes[row, 0]
            colours = modality_colours(run.modalities)
            width = 0.8 / len(run.modalities)
            values = contributions(run, metric)
            for m, modality in enumerate(run.modalities):
                places = [i + (m - (len(run.modalities) - 1) / 2) * width for i in range(len(values))]
                heights = [values[region][modality] for region in values]
                scaled = [shown.scale * h for h in heights]
                bars = panel.bar(places, scaled, width * 0.92, color=colours[modality], label=modality_label(modality))
                labels = [number(h, metric) for h in heights]
                panel.bar_label(bars, labels, fontsize=7.5, padding=2)
            panel.set_xticks(range(len(values)), list(values))
            panel.axhline(0, color="#8a94a0", linewidth=0.8)
            panel.margins(y=0.18)
            panel.set_ylabel(f"{shown.title} points")
            panel.set_title(f"{run.name}: contribution of each modality, n = {counted(run.summary['n_cases'], 'case')}")
            if row == 0:
                panel.legend(ncols=len(run.modalities), loc="upper right", fontsize=8.5, bbox_to_anchor=(1, 1.02))
    return figure
