"""An axis whose ticks are subsets, drawn as filled and empty dots below the plot."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes

from medmap_monai.modalities import Modalities
from medmap_monai.report.display import modality_label, subset_dots
from medmap_monai.report.figure_style import INK

_ROW = 0.16  # inches per modality


def draw_subset_axis(axes: Axes, subsets: Sequence[str], modalities: Modalities, height: float) -> None:
    """Replace the x tick labels of ``axes`` (one integer position per subset) by a matrix of dots.

    Args:
        axes: the plot; needs free space below it, ``0.16`` inches per modality.
        subsets: names in the order of the positions 0, 1, ...
        modalities: one row of dots each, in this order.
        height: of the plot in inches.
    """
    axes.set_xticks(range(len(subsets)), [""] * len(subsets))
    axes.tick_params(axis="x", length=0)
    step = _ROW / height
    for row, modality in enumerate(modalities):
        y = -step * (row + 0.9)
        axes.text(-0.012, y, modality_label(modality), transform=axes.transAxes, ha="right", va="center", fontsize=8.5)
        for x, subset in enumerate(subsets):
            filled = subset_dots(subset, modalities)[row]
            axes.plot(
                [x],
                [y],
                "o",
                transform=axes.get_xaxis_transform(),
                clip_on=False,
                markersize=5.5,
                color=INK if filled else "white",
                markeredgecolor=INK if filled else "#b3bcc6",
                markeredgewidth=0.9,
            )


def subset_axis_height(modalities: Modalities) -> float:
    """Inches that the dots need below a plot."""
    return _ROW * (len(modalities) + 0.9)
