"""Names and colours of label values, as ITK-SNAP and 3D Slicer read them beside a label map."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from medmap_monai.utils.class_colours import class_colours
from medmap_monai.utils.files import write_text


def write_colour_tables(
    folder: str | os.PathLike[str], name: str, values: Mapping[int, int], classes: Sequence[str]
) -> tuple[Path, Path]:
    """Write ``labels_<name>.label`` (ITK-SNAP) and ``labels_<name>.ctbl`` (3D Slicer), unless they are there already.

    Args:
        folder: folder of the label maps.
        name: of the label values, such as the edition.
        values: class index -> value on disk.
        classes: name of every class, background first.

    Returns:
        both paths.
    """
    colours = class_colours(classes)
    rows = [(values.get(index, index), classes[index], _rgb(colours[index])) for index in range(1, len(classes))]
    snap = ["# ITK-SNAP label description: value, red, green, blue, opacity, visible, in 3-D, name"]
    snap.append('    0     0    0    0        0  0  0    "background"')
    snap += [f'{v:5d} {r:5d} {g:4d} {b:4d}        1  1  1    "{_plain(n)}"' for v, n, (r, g, b) in sorted(rows)]
    slicer = ["# 3D Slicer colour table: value name red green blue alpha", "0 background 0 0 0 0"]
    slicer += [f"{v} {_plain(n).replace(' ', '_')} {r} {g} {b} 255" for v, n, (r, g, b) in sorted(rows)]
    stem = re.sub(r"[^\w.-]", "_", name)
    paths = (Path(folder) / f"labels_{stem}.label", Path(folder) / f"labels_{stem}.ctbl")
    for path, lines in zip(paths, (snap, slicer), strict=True):
        text = "\n".join(lines) + "\n"
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_text(path, text)
    return paths


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _plain(name: str) -> str:
    """A name without what would end it in either file."""
    return re.sub(r'["\r\n\t]', " ", name)
