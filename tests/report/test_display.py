from __future__ import annotations

import pytest

from medmap_monai.report.display import interval, number, p_value, subset_label
from medmap_monai.report.figure_style import cell_colour, gain_colour
from medmap_monai.utils.class_colours import class_colours


@pytest.mark.parametrize(
    ("value", "metric", "signed", "text"),
    [
        (0.7123, "dice", False, "71.2"),
        (-0.0333, "dice", True, "\N{MINUS SIGN}3.3"),
        (-0.00001, "dice", True, "+0.0"),
        (12.345, "hd95", False, "12.3"),
        (None, "dice", False, "\N{EN DASH}"),
        (float("nan"), "hd95", False, "\N{EN DASH}"),
        (0.5, "unknown_metric", False, "0.500"),
    ],
)
def test_numbers(value, metric, signed, text):
    assert number(value, metric, signed=signed) == text


def test_words():
    assert interval([0.1, 0.25], "dice") == "10.0 to 25.0"
    assert interval(None, "dice") == "\N{EN DASH}"
    assert [p_value(p) for p in (0.00001, 0.0123, 1.0, None)] == ["< 0.001", "0.012", "1", "\N{EN DASH}"]
    assert subset_label("flair+t1ce+x") == "FLAIR + T1ce + x"


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("share", [i / 20 for i in range(21)])
def test_text_on_coloured_cells_is_readable(share):
    for back, ink in (cell_colour(share), gain_colour(share, 1.0), gain_colour(-share, 1.0)):
        light, dark = sorted((_luminance(back), _luminance(ink)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5  # WCAG AA


def test_classes_of_every_edition_have_colours_of_their_own():
    for classes in (("background", "NCR", "ED", "ET", "RC"), ("bg", "a", "b", "c", "oedema", "scar")):
        colours = class_colours(classes)
        assert len(set(colours)) == len(classes)
