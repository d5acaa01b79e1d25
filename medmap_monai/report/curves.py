"""Training curves and balancing curves from the CSV logs of a training."""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from medmap_monai.modalities import Modalities
from medmap_monai.report.display import modality_label
from medmap_monai.report.figure_style import INK, SERIES, figure_style, modality_colours

_COLUMNS = 3


def read_curves(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    """A tidy log; ValueError when it has other columns."""
    table = pd.read_csv(path, dtype={"name": str, "modality": str}, keep_default_na=False)
    if tuple(table.columns) != columns:
        raise ValueError(f"{path} has columns {list(table.columns)}, expected {list(columns)}")
    table["value"] = pd.to_numeric(table["value"], errors="coerce")
    return table


def training_figure(path: Path, title: str) -> Figure:
    """One panel per logged name (losses, learning rate, validation metrics) over the epochs of ``training.csv``."""
    table = read_curves(path, ("epoch", "name", "value"))
    with figure_style():
        names = list(table["name"].unique())
        figure, panels = _panels(names, title)
        for i, name in enumerate(names):
            rows = table[table["name"] == name]
            few = len(rows) < 40
            panels[i].plot(rows["epoch"], rows["value"], color=SERIES[i % len(SERIES)], marker="o" if few else "", ms=3)
    return figure


def balance_figure(path: Path, title: str, modalities: Modalities) -> Figure:
    """One panel per name of ``balance.csv`` (distances, relative preference, beta ...), one line per modality."""
    table = read_curves(path, ("epoch", "name", "modality", "value"))
    colours = modality_colours(modalities)
    with figure_style():
        names = list(table["name"].unique())
        figure, panels = _panels(names, title)
        for i, name in enumerate(names):
            for modality, rows in table[table["name"] == name].groupby("modality", sort=False):
                colour = colours.get(str(modality), INK)
                panels[i].plot(rows["epoch"], rows["value"], color=colour, marker="o" if len(rows) < 40 else "", ms=3)
        handles = [plt.Line2D([], [], color=colours[m], label=modality_label(m)) for m in modalities]
        figure.legend(handles=handles, loc="outside lower center", ncols=len(modalities))
    return figure


def _panels(names: list[str], title: str) -> tuple[Figure, list[plt.Axes]]:
    columns = min(_COLUMNS, max(1, len(names)))
    rows = max(1, math.ceil(len(names) / columns))
    figure, grid = plt.subplots(
        rows, columns, figsize=(3.3 * columns, 2.1 * rows + 0.4), squeeze=False, layout="constrained"
    )
    panels = list(grid.flat)
    for axes in panels[len(names) :]:
        axes.set_axis_off()
    for axes, name in zip(panels, names, strict=False):
        axes.set_title(name.replace("_", " "), fontsize=9.5)
        axes.set_xlabel("epoch")
        axes.grid(color="#e3e7eb", linewidth=0.8)
        axes.set_axisbelow(True)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
    return figure, panels
