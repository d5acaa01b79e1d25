"""Volumes packed for the viewer in the page."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmap_monai.engines.case_maps import CaseMaps
from medmap_monai.modalities import Modalities
from medmap_monai.report.display import modality_label, subset_dots, subset_label
from medmap_monai.report.qualitative_grid import busiest_slice
from medmap_monai.utils.class_colours import class_colours

#: bytes that one case may take in the page
CASE_BUDGET = 14_000_000
_NIIVUE = "niivue-0.69.0.umd.js.gz"


def viewer_case(
    maps: CaseMaps, run: str, dice: Mapping[str, Mapping[str, float]], budget: int = CASE_BUDGET
) -> dict[str, Any]:
    """One case as JSON values: volumes gzipped, in NIfTI order (first axis fastest), base64.

    Args:
        maps: the case; volumes in LPS.
        run: the run that its predictions come from.
        dice: subset -> region -> Dice of this case, 0 to 1.
        budget: bytes; a larger case is thinned by whole factors until it fits.

    Returns:
        ``thinned`` tells the factor (1 = full resolution), ``spacing`` belongs to the thinned grid.
    """
    factor = 1
    while True:
        packed = _packed(maps, factor)
        size = sum(len(text) for group in packed.values() for text in group.values())
        if size <= budget or min(maps.reference.shape) // (factor + 1) < 8:
            break
        factor += 1
    modalities = Modalities(maps.modalities)
    reference = _thin(_volume(maps.reference), factor)
    return {
        "case": maps.case_id,
        "run": run,
        "shape": list(reference.shape),
        "spacing": [s * factor for s in (*maps.spacing, 1.0)[:3]],
        "thinned": factor,
        "slice": busiest_slice(reference),
        "modalities": [{"name": m, "label": modality_label(m)} for m in modalities],
        "classes": [
            {"index": i, "name": name, "colour": colour}
            for i, (name, colour) in enumerate(zip(maps.classes, class_colours(maps.classes), strict=True))
            if i
        ],
        "subsets": [
            {"name": s, "label": subset_label(s), "flags": subset_dots(s, modalities), "dice": dict(dice.get(s, {}))}
            for s in maps.predictions
        ],
        **packed,
    }


def share_images(cases: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Cases in which the images of the same case from another run are not repeated.

    A case whose images stand in an earlier one has ``images_from`` (its number) and no images of its own.
    """
    shared: list[dict[str, Any]] = []
    for case in cases:
        twin = next((i for i, other in enumerate(shared) if other.get("images") == case["images"]), None)
        if twin is None:
            shared.append(case)
        else:
            shared.append({**{k: v for k, v in case.items() if k != "images"}, "images_from": twin})
    return shared


def niivue_script() -> str | None:
    """The vendored NiiVue release, gzipped and base64; None where the package was built without it."""
    path = files("medmap_monai.report") / "vendor" / _NIIVUE
    return base64.b64encode(path.read_bytes()).decode("ascii") if path.is_file() else None


def _packed(maps: CaseMaps, factor: int) -> dict[str, dict[str, str]]:
    return {
        "images": {m: _pack(image, factor) for m, image in zip(maps.modalities, maps.image, strict=True)},
        "labels": {
            "reference": _pack(maps.reference, factor),
            **{name: _pack(labels, factor) for name, labels in maps.predictions.items()},
        },
    }


def _pack(volume: NDArray[np.uint8], factor: int) -> str:
    data = _thin(_volume(volume), factor).tobytes(order="F")
    return base64.b64encode(gzip.compress(data, 6, mtime=0)).decode("ascii")


def _volume(volume: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A slice becomes a volume of one slice."""
    return volume if volume.ndim == 3 else volume[..., None]


def _thin(volume: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    steps: Sequence[slice] = [
        slice(factor // 2 if n >= factor else 0, None, factor if n >= factor else 1) for n in volume.shape
    ]
    return volume[tuple(steps)]
