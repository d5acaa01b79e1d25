"""Colours of classes, the same in figures, viewers and colour tables; colour-blind safe."""

from __future__ import annotations

from collections.abc import Sequence

#: Okabe and Ito, "Color Universal Design" (2008)
BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, YELLOW, INK = "#CC79A7", "#56B4E9", "#F0E442", "#1b2733"
SERIES = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION, YELLOW)
#: by class name: the hues of the papers (core red, oedema green, enhancing yellow) in tones that stay apart for all
_CLASSES = {"NCR": VERMILION, "ED": GREEN, "ET": YELLOW, "RC": SKY, "scar": YELLOW, "oedema": GREEN}


def class_colours(classes: Sequence[str]) -> list[str]:
    """A colour (hex) per class index; index 0 (background) is not drawn."""
    rest = [colour for colour in SERIES if colour not in {_CLASSES.get(name) for name in classes}]
    colours = ["#000000"]
    for name in classes[1:]:
        colours.append(_CLASSES[name] if name in _CLASSES else rest.pop(0) if rest else SERIES[len(colours) % 7])
    return colours
