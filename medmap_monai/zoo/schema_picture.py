"""A picture of what a bundle does, made of its modalities and regions: SVG to stand in an HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

_ROW, _BOX, _PAD = 40, 28, 10
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")


def schema_picture(modalities: Sequence[str], outputs: Sequence[str]) -> str:
    """Modalities, each with an encoder of its own, one of them absent; fusion; what is segmented.

    Args:
        modalities: as they are to be written, in channel order.
        outputs: regions or classes.
    """
    rows = max(len(modalities), len(outputs), 1)
    height = rows * _ROW + 2 * _PAD
    middle = height / 2
    absent = len(modalities) - 2 if len(modalities) > 1 else -1  # any of them: drawn as an example
    parts = []
    for number, name in enumerate(modalities):
        y = middle + (number - (len(modalities) - 1) / 2) * _ROW
        missing = number == absent
        colour, dash = ("#57606a", ' stroke-dasharray="4 3"') if missing else (_COLOURS[number % len(_COLOURS)], "")
        label = f"{name} absent" if missing else name
        parts += [_box(10, y, 110, label, colour, dash), _box(170, y, 90, "encoder", colour, dash)]
        if not missing:
            parts += [_line(120, y, 170, y), _line(260, y, 310, middle)]
    parts += [_box(310, middle, 120, "masked fusion", "#1b1f24"), _line(430, middle, 470, middle)]
    parts.append(_box(470, middle, 80, "decoder", "#1b1f24"))
    for number, name in enumerate(outputs):
        y = middle + (number - (len(outputs) - 1) / 2) * _ROW
        parts += [_line(550, middle, 600, y), _box(600, y, 110, name, "#1b1f24")]
    said = f"{', '.join(modalities)}: any subset of them is encoded, fused and decoded to {', '.join(outputs)}"
    return (
        f'<svg class="schema" viewBox="0 0 720 {height}" role="img" aria-label="{escape(said)}" '
        f'font-family="system-ui,sans-serif" font-size="13">{"".join(parts)}</svg>'
    )


def _box(x: float, y: float, width: float, text: str, colour: str, dash: str = "") -> str:
    return (
        f'<rect x="{x:g}" y="{y - _BOX / 2:g}" width="{width:g}" height="{_BOX}" rx="5" fill="#fff" '
        f'stroke="{colour}" stroke-width="1.5"{dash}/>'
        f'<text x="{x + width / 2:g}" y="{y + 4.5:g}" text-anchor="middle" fill="{colour}">{escape(text)}</text>'
    )


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" stroke="#8c959f" stroke-width="1.2"/>'
