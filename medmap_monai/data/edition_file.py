"""A data set of one's own as a JSON file: names, labels and regions, without any Python."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medmap_monai.data.edition import Edition
from medmap_monai.data.editions import EDITIONS
from medmap_monai.modalities import Modalities
from medmap_monai.utils.json_file import read_json

#: a file of this name in the folder of a cohort says how to read it
EDITION_FILE = "edition.json"
_REQUIRED = ("name", "modalities", "labels")
#: key -> the type it must have
_KEYS: dict[str, type | tuple[type, ...]] = {
    "name": str,
    "title": str,
    "modalities": Mapping,
    "label": (str, list),
    "labels": Mapping,
    "regions": Mapping,
    "case": str,
    "image_folder": str,
    "label_folder": str,
    "skip_folders": list,
    "channels": Mapping,
    "slices": bool,
}


def read_edition(path: str | os.PathLike[str]) -> Edition:
    """The edition that a JSON file describes.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no JSON, or :func:`edition_from` refuses it; names the file.
    """
    source = Path(path)
    if not source.is_file():
        raise FileNotFoundError(f"edition file {source} does not exist")
    return edition_from(read_json(source, "edition file"), f"edition file {source}")


def edition_from(content: Any, where: str = "edition") -> Edition:
    """The edition that an object describes.

    Args:
        content: an object with

            - ``name``: short, not that of a built-in edition;
            - ``modalities``: modality -> what follows the case id in its files' names (a regular expression; most are
              plain, as ``_ct``), in the order of the channels;
            - ``labels``: class -> its value, or values, on disk, without the background, which is 0;

            and optionally ``title``, ``label`` (what follows the case id in label files; one or a list; default
            ``_seg``), ``regions`` (region -> classes; default: each class), ``case`` (regular expression of case ids,
            for files whose names it does not follow from), ``image_folder``, ``label_folder``, ``skip_folders``,
            ``channels`` (modality -> index in a 4-D file) and ``slices``, as in
            :class:`~medmap_monai.data.edition.Edition`.
        where: for messages.

    Raises:
        ValueError: a key is absent, unknown or of the wrong type, or the parts do not fit together.
    """
    try:
        return _edition(content)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _edition(content: Any) -> Edition:
    if not isinstance(content, Mapping):
        raise ValueError(f"must be an object, got a {type(content).__name__}")
    absent, unknown = [k for k in _REQUIRED if k not in content], sorted(set(content) - set(_KEYS))
    if absent or unknown:
        raise ValueError(f"lacks {absent}, does not know {unknown}; allowed are {list(_KEYS)}")
    for key, value in content.items():
        if not isinstance(value, _KEYS[key]):
            raise ValueError(f"{key} has the wrong type: {value!r}")
    name = content["name"]
    if name.lower() in EDITIONS or name.endswith(".json") or not name.strip():
        raise ValueError(f"name {name!r} cannot be used; it must differ from {', '.join(EDITIONS)}")
    suffixes = {str(key): _pattern(key, value) for key, value in content["modalities"].items()}
    labels, classes = _labels(content["labels"])
    label = content.get("label", "_seg")
    return Edition(
        name=name,
        title=content.get("title", name),
        modalities=Modalities(tuple(suffixes)),
        suffixes=suffixes,
        label_suffixes=tuple(_pattern("label", one) for one in ([label] if isinstance(label, str) else label)),
        labels=labels,
        classes=classes,
        regions=_regions(content.get("regions"), classes),
        any_case=_pattern("case", content.get("case", r".*?")),
        image_folder=content.get("image_folder"),
        label_folder=content.get("label_folder"),
        skip_folders=tuple(content.get("skip_folders", ())),
        channels=_channels(content.get("channels"), suffixes),
        slices=content.get("slices", False),
    )


def _labels(given: Mapping[str, Any]) -> tuple[dict[int, int], tuple[str, ...]]:
    """Value on disk -> class, and the names of the classes."""
    classes = ("background", *given)
    if len(classes) < 2 or "background" in given:
        raise ValueError("labels must name at least one class, and not the background, which is 0")
    labels = {0: 0}
    for index, (name, values) in enumerate(given.items(), start=1):
        for value in values if isinstance(values, list) else [values]:
            if not isinstance(value, int) or isinstance(value, bool) or value in labels:
                raise ValueError(f"label value {value!r} of {name} must be a whole number that no other class has")
            labels[value] = index
    return labels, classes


def _regions(given: Mapping[str, Any] | None, classes: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    if given is None:
        return {name: (index,) for index, name in enumerate(classes) if index}
    regions = {}
    for region, names in given.items():
        held = [names] if isinstance(names, str) else names
        if not isinstance(held, list) or not held or not set(held) <= set(classes[1:]):
            raise ValueError(f"region {region} must name classes of {list(classes[1:])}, got {names!r}")
        regions[region] = tuple(sorted(classes.index(name) for name in held))
    if not regions:
        raise ValueError("regions must name at least one")
    return regions


def _channels(given: Mapping[str, Any] | None, suffixes: Mapping[str, str]) -> dict[str, int] | None:
    if given is None:
        return None
    if set(given) != set(suffixes) or not all(isinstance(index, int) for index in given.values()):
        raise ValueError(f"channels must give every modality of {list(suffixes)} an index, got {dict(given)}")
    return dict(given)


def _pattern(what: str, text: Any) -> str:
    try:
        re.compile(text)
    except (re.error, TypeError) as error:
        raise ValueError(f"{what}: {text!r} is no regular expression: {error}") from error
    return str(text)
