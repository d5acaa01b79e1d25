"""How numbers, metrics, modalities and subsets are written for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from medmap_monai.modalities import SUBSET_SEPARATOR, Modalities

FILLED, EMPTY = "●", "○"
NOTHING = "\N{EN DASH}"
_MODALITY_NAMES = {
    "flair": "FLAIR",
    "t1ce": "T1ce",
    "t1": "T1",
    "t2": "T2",
    "bssfp": "bSSFP",
    "lge": "LGE",
}


class MetricDisplay(NamedTuple):
    """``scale`` turns the stored value into ``unit``; ``digits`` after the point; which direction is better."""

    title: str
    unit: str
    scale: float
    digits: int
    higher_is_better: bool


_METRICS = {
    "dice": MetricDisplay("Dice", "%", 100.0, 1, True),
    "hd95": MetricDisplay("HD95", "mm", 1.0, 1, False),
    "lesion_f1": MetricDisplay("Lesion F1", "%", 100.0, 1, True),
    "lesion_panoptic_dice": MetricDisplay("Lesion-wise Dice", "%", 100.0, 1, True),
}


def metric_display(metric: str) -> MetricDisplay:
    """Title, unit and format of a metric; one that is not known is shown as it is stored."""
    return _METRICS.get(metric, MetricDisplay(metric, "", 1.0, 3, True))


def modality_label(name: str) -> str:
    """A modality as the field writes it."""
    return _MODALITY_NAMES.get(name, name)


def subset_label(subset: str) -> str:
    """``flair+t1`` -> ``FLAIR + T1``."""
    return " + ".join(modality_label(name) for name in subset.split(SUBSET_SEPARATOR))


def subset_dots(subset: str, modalities: Modalities) -> list[bool]:
    """One flag per modality, in their order."""
    return list(modalities.mask(subset))


def number(value: float | None, metric: str, digits: int | None = None, signed: bool = False) -> str:
    """A stored value in the unit of its metric, without the unit; a dash where there is none."""
    if value is None or value != value:
        return NOTHING
    shown = metric_display(metric)
    places = shown.digits if digits is None else digits
    text = f"{value * shown.scale:{'+' if signed else ''}.{places}f}"
    if float(text) == 0:  # no "-0.0"
        text = f"{0:{'+' if signed else ''}.{places}f}"
    return text.replace("-", "\N{MINUS SIGN}")


def interval(ends: Sequence[float] | None, metric: str) -> str:
    """``81.0 to 85.2``; a dash where there is none."""
    return NOTHING if ends is None else f"{number(ends[0], metric)} to {number(ends[1], metric)}"


def p_value(p: float | None) -> str:
    """A p-value with two significant digits, never 0."""
    if p is None:
        return NOTHING
    return "< 0.001" if p < 0.001 else f"{p:.2g}"
