"""What quality to expect from a study, given the modalities it has: the bridge from evaluation to prediction."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from medmap_monai.metrics.contribution import expected_gain
from medmap_monai.modalities import Modalities
from medmap_monai.utils.counted import counted
from medmap_monai.utils.files import write_text
from medmap_monai.utils.json_file import read_json

RELIABILITY_FILE = "reliability.json"
METRIC = "dice"
#: a region is unreliable with a subset when its expected Dice lies below this,
MINIMUM_DICE = 0.5
#: or below this share of what the best subset reaches
MINIMUM_SHARE = 0.75


class ExpectedScore(NamedTuple):
    """Expected Dice of one region: mean over ``n`` evaluated cases, its 95 % interval, and whether to rely on it."""

    mean: float
    interval: tuple[float, float] | None
    n: int
    reliable: bool


class ExpectedQuality(NamedTuple):
    """``values``: region -> :class:`ExpectedScore`; ``warnings``: sentences for people; ``source``: evaluated data."""

    values: dict[str, ExpectedScore]
    warnings: list[str]
    source: str


def write_reliability(
    summary: Mapping[str, Any],
    path: str | os.PathLike[str],
    minimum_dice: float = MINIMUM_DICE,
    minimum_share: float = MINIMUM_SHARE,
) -> None:
    """Write ``reliability.json`` from a ``summary.json``: expected Dice per subset and region.

    Post-processed regions (``ETpp``) are left out: a prediction is written without that post-processing.

    Args:
        summary: of a subset evaluation.
        path: the file.
        minimum_dice: a region with a lower expected Dice is unreliable.
        minimum_share: so is one that reaches less than this share of the best subset's Dice.

    Raises:
        ValueError: when the summary holds no Dice.
    """
    table: dict[str, dict[str, dict[str, Any]]] = {}
    processed = {name for name, region in summary.get("regions", {}).items() if region["minimum_voxels"]}
    for entry in summary["scores"]:
        if entry["metric"] == METRIC and entry["mean"] is not None and entry["region"] not in processed:
            cell = {"mean": entry["mean"], "ci": entry["ci"], "n": entry["n"]}
            if "gains" in summary:  # over the cases that have both subsets
                cell["gains"] = summary["gains"][METRIC].get(entry["region"], {}).get(entry["subset"], {})
            table.setdefault(entry["subset"], {})[entry["region"]] = cell
    if not table:
        raise ValueError("the summary holds no Dice, nothing to expect from it")
    content = {
        "format": 1,
        "metric": METRIC,
        "unit": "1",
        "minimum_dice": minimum_dice,
        "minimum_share": minimum_share,
        "confidence": summary.get("confidence"),
        "modalities": summary["modalities"],
        "protocol": summary.get("protocol"),
        "data": summary.get("data"),
        "synthetic": summary.get("synthetic"),
        "cases": summary.get("n_cases"),
        "checkpoint": summary.get("checkpoint"),
        "settings": _settings(summary),
        "subsets": table,
    }
    write_text(path, json.dumps(content, indent=2) + "\n")


def _settings(summary: Mapping[str, Any]) -> dict[str, Any]:
    """What beside weights and protocol the label maps came from; a prediction made otherwise has another quality."""
    found = {key: summary[key] for key in ("inference", "smallest_finding") if key in summary}
    if found:
        found["grid"] = {key: summary[key] for key in ("orientation", "spacing") if key in summary}
    return found


def read_reliability(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The content of a ``reliability.json``; ValueError, which names the file, when it is none."""
    content = read_json(Path(path), "reliability file", "medmap evaluate writes it anew")
    if not isinstance(content, dict) or content.get("format") != 1 or "subsets" not in content:
        raise ValueError(f"{path} is not a reliability file of format 1")
    return content


def expected_quality(reliability: Mapping[str, Any], subset: str | Iterable[str]) -> ExpectedQuality:
    """What Dice to expect for each region from a study with the modalities ``subset``.

    Warnings follow from the numbers alone: a region is unreliable when its expected Dice is below ``minimum_dice``,
    or below ``minimum_share`` of the best subset's. The sentence names the modality that would help most.

    Args:
        reliability: content of ``reliability.json``.
        subset: modality names, or a subset name such as ``flair+t2``.

    Raises:
        ValueError: for an unknown modality or no modality at all.
    """
    modalities = Modalities(tuple(reliability["modalities"]))
    mask = modalities.mask(subset)
    name = modalities.subset_name(mask)
    table: Mapping[str, Mapping[str, Any]] = reliability["subsets"]
    source = _source(reliability)
    if name not in table:
        return ExpectedQuality({}, [f"{name} was not part of the evaluation: its quality is unknown"], source)
    values, warnings = {}, []
    for region, cell in table[name].items():
        means = {other: cells[region]["mean"] for other, cells in table.items() if region in cells}
        best = max(means, key=lambda other: means[other])
        low = cell["mean"] < reliability["minimum_dice"]
        poor = cell["mean"] < reliability["minimum_share"] * means[best]
        interval = (cell["ci"][0], cell["ci"][1]) if cell["ci"] else None
        values[region] = ExpectedScore(cell["mean"], interval, cell["n"], not (low or poor))
        if low or poor:
            text = f"{region} is unreliable with {name}: expected Dice {cell['mean']:.2f} (n = {cell['n']})"
            if best != name:
                text += f", {means[best]:.2f} with {best}"
            warnings.append(text + _advice(_gains(table, region, modalities, name)))
    return ExpectedQuality(values, warnings, source)


def _gains(
    table: Mapping[str, Mapping[str, Any]], region: str, modalities: Modalities, name: str
) -> Mapping[str, float]:
    """What each absent modality brought, best first; empty where that is not known."""
    cell = table[name][region]
    if "gains" in cell:
        return dict(cell["gains"])
    same = {other: c[region] for other, c in table.items() if region in c and c[region]["n"] == cell["n"]}
    try:  # a file of an earlier version; means over other numbers of cases are means over other cases
        return expected_gain({other: c["mean"] for other, c in same.items()}, modalities, name)
    except ValueError:  # not every subset was evaluated
        return {}


def _advice(gains: Mapping[str, float]) -> str:
    """Which single modality would help most, where that was evaluated."""
    if not gains:
        return ""
    modality, gain = next(iter(gains.items()))
    return f"; {modality} would be expected to bring {gain:+.2f}" if gain >= 0.01 else ""


def _source(reliability: Mapping[str, Any]) -> str:
    data = reliability.get("data") or "evaluated data"
    kind = " (synthetic)" if reliability.get("synthetic") and "synthetic" not in data else ""
    cases = counted(reliability["cases"], "case") if "cases" in reliability else "an unknown number of cases"
    return f"{cases} of {data}{kind}, protocol {reliability.get('protocol')}"
