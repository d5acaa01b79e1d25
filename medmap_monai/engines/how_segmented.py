"""What beside the weights decides about a label map, in the words of ``summary.json`` and ``reliability.json``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from medmap_monai.transforms.pipelines import fixed_grid
from medmap_monai.transforms.small_findings import RemoveSmallFindingsd
from medmap_monai.utils.describe import describe


def describe_inferer(inferer: Any) -> dict[str, Any]:
    """The settings of the windows, and of the decision where there is one, that change a score."""
    decision = {} if inferer.decision is None else {"decision": describe(inferer.decision)}
    return {
        "roi_size": np.atleast_1d(inferer.roi_size).tolist(),
        "overlap": np.atleast_1d(inferer.overlap).tolist(),
        "mode": str(getattr(inferer.mode, "value", inferer.mode)),
        "blend": inferer.blend,
        "skip_background": inferer.skip_background,
        **decision,
    }


def how_segmented(protocol: str, parts: Mapping[str, Any]) -> dict[str, Any]:
    """Protocol, windows, decision, grid and smallest finding of a prediction; what is not known is left out.

    Args:
        protocol: name of the preprocessing, or empty.
        parts: ``inferer``, ``preprocessing`` and ``postprocessing`` of the run.
    """
    found: dict[str, Any] = {"protocol": protocol} if protocol else {}
    inferer = parts.get("inferer")
    if hasattr(inferer, "skip_background"):
        found["inference"] = describe_inferer(inferer)
    if parts.get("preprocessing") is not None:
        found["grid"] = fixed_grid(parts["preprocessing"])
    if parts.get("postprocessing") is not None:
        steps = getattr(parts["postprocessing"], "transforms", ())
        found["smallest_finding"] = max((s.smallest for s in steps if isinstance(s, RemoveSmallFindingsd)), default=0.0)
    return found


def unlike_measured(reliability: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The settings of this prediction that differ from those of the evaluation, as far as both are told."""
    measured = {**(reliability.get("settings") or {}), "protocol": reliability.get("protocol")}
    told = [key for key in now if measured.get(key) is not None]
    then, here = _flat({key: measured[key] for key in told}), _flat({key: now[key] for key in told})
    unlike = [key for key in {**then, **here} if then.get(key) != here.get(key)]
    return [_difference(key, then.get(key), here.get(key)) for key in unlike]


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings side by side; a decision stays as it is."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= dict(value) if isinstance(value, Mapping) else {key: value}
    return found


def _difference(key: str, then: Any, now: Any) -> str:
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        return f"another {key}"
    words = ["none" if value is None else "one" if isinstance(value, Mapping) else str(value) for value in (then, now)]
    return f"{key} {words[0]}, here {words[1]}"
