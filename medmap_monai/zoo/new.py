"""The file of a new bundle, with what its author has yet to think about filled in sensibly."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medmap_monai.modalities import Modalities
from medmap_monai.utils.files import write_text
from medmap_monai.zoo.build import build_bundle
from medmap_monai.zoo.json_text import json_text

_WINDOW = {2: 256, 3: 96}


def new_bundle(
    name: str,
    folder: str | os.PathLike[str],
    modalities: Sequence[str],
    classes: Sequence[str],
    network: str = "unet",
    method: str | Sequence[str] = "dropout",
    loss: str = "dice_ce",
    spatial_dims: int = 3,
    roi_size: Sequence[int] | None = None,
) -> Path:
    """Write ``FOLDER/NAME.json`` for a task of its own, and the bundle's folder beside it.

    Args:
        name: of the bundle, and of its folder.
        folder: where both go.
        modalities: names in channel order.
        classes: names, without the background; class 1 first.
        network, method, loss: names of parts, see :func:`~medmap_monai.zoo.source.known_parts`.
        spatial_dims: 2 for networks that work on slices.
        roi_size: window in voxels; default 96^3 or 256^2.

    Returns:
        the file, to be edited and built anew.

    Raises:
        FileExistsError: the file or the folder exists already.
        ValueError: a name is unusable or unknown.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
        raise ValueError(f"bundle name {name!r}: letters, digits and underscores, a letter first")
    names = list(Modalities(tuple(modalities)))
    if not classes or "background" in classes or len(set(classes)) != len(classes):
        raise ValueError(f"classes {list(classes)}: name each once, and leave out the background, which is class 0")
    path = Path(folder) / f"{name}.json"
    for taken in (path, path.with_suffix("")):
        if taken.exists():
            raise FileExistsError(f"{taken} exists already; choose another name, or edit and build it")
    window = list(roi_size) if roi_size is not None else [_WINDOW[spatial_dims]] * spatial_dims
    if len(window) != spatial_dims:
        raise ValueError(f"roi_size {window} must have {spatial_dims} numbers")
    task: dict[str, Any] = {
        "modalities": names,
        "classes": ["background", *classes],
        "spatial_dims": spatial_dims,
        "roi_size": window,
    }
    source = {
        "title": name.replace("_", " "),
        "task": task,
        "network": network,
        "loss": loss,
        "method": method if isinstance(method, str) or len(method) > 1 else method[0],
    }
    write_text(path, json_text(source))
    try:
        build_bundle(path)
    except ValueError:
        path.unlink()
        raise
    return path
