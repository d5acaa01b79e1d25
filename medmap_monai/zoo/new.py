"""The file of a new bundle, with what its author has yet to think about filled in sensibly."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medmap_monai.data.editions import get_edition
from medmap_monai.utils.files import write_text
from medmap_monai.zoo.build import build_bundle
from medmap_monai.zoo.bundle_folder import load_json
from medmap_monai.zoo.json_text import json_text
from medmap_monai.zoo.source import losses_of

_WINDOW = {2: 256, 3: 96}


def new_bundle(
    name: str,
    folder: str | os.PathLike[str],
    edition: str | os.PathLike[str] | Mapping[str, Any],
    network: str = "unet",
    method: str | Sequence[str] = "dropout",
    loss: str | None = None,
    roi_size: Sequence[int] | None = None,
) -> Path:
    """Write ``FOLDER/NAME.json`` for a task of its own, and the bundle's folder beside it.

    The bundle holds its edition, so that its commands, and ``medmap`` with it, know the task.

    Args:
        name: of the bundle, and of its folder.
        folder: where both go.
        edition: names of modalities, files, classes and regions: a JSON file as
            :func:`~medmap_monai.data.edition_file.read_edition` reads, or its content (see :func:`simple_edition`).
        network, method, loss: names of parts, see :func:`~medmap_monai.zoo.source.known_parts`; the loss is by default
            the one that the method works with.
        roi_size: window in voxels; default 96^3 or 256^2.

    Returns:
        the file, to be edited and built anew.

    Raises:
        FileExistsError: the file or the folder exists already.
        ValueError: a name is unusable or unknown.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
        raise ValueError(f"bundle name {name!r}: letters, digits and underscores, a letter first")
    described = get_edition(edition if isinstance(edition, Mapping) else os.fspath(edition))
    content = edition if isinstance(edition, Mapping) else load_json(Path(edition))
    path = Path(folder) / f"{name}.json"
    for taken in (path, path.with_suffix("")):
        if taken.exists():
            raise FileExistsError(f"{taken} exists already; choose another name, or edit and build it")
    dims = described.spatial_dims
    window = list(roi_size) if roi_size is not None else [_WINDOW[dims]] * dims
    if len(window) != dims:
        raise ValueError(f"roi_size {window} must have {dims} numbers")
    task = {"edition": dict(content), "roi_size": window}
    methods = [method] if isinstance(method, str) else list(method)
    source = {
        "title": name.replace("_", " "),
        "task": task,
        "network": network,
        "loss": loss or losses_of(methods[0])[0],
        "method": methods if len(methods) > 1 else methods[0],
    }
    write_text(path, json_text(source))
    try:
        build_bundle(path)
    except ValueError:
        path.unlink()
        raise
    return path


def simple_edition(
    name: str, modalities: Sequence[str], classes: Sequence[str], slices: bool = False
) -> dict[str, Any]:
    """An edition's content: images ``CASE_<modality>.nii.gz``, labels 1, 2, ... in ``CASE_seg.nii.gz``.

    Args:
        name: of the edition.
        modalities: names in channel order.
        classes: names, without the background; class 1 first.
        slices: whether networks work on slices.
    """
    content: dict[str, Any] = {
        "name": name,
        "modalities": {modality: f"_{re.escape(modality)}" for modality in modalities},
        "label": "_seg",
        "labels": {label: value for value, label in enumerate(classes, start=1)},
    }
    return content | ({"slices": True} if slices else {})
