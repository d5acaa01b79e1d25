"""Means, spreads and confidence intervals from a tidy table of scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from medmap_monai.metrics.bootstrap import Bootstrap
from medmap_monai.metrics.contribution import shapley_values
from medmap_monai.metrics.edge_cases import Empty
from medmap_monai.modalities import SUBSET_SEPARATOR, Modalities

_DIGITS = 6
_BOOTSTRAP = Bootstrap()
#: metrics for which a Shapley value makes sense: larger is better and no modality scores 0
CONTRIBUTION_METRICS = ("dice",)


def summarise(table: pd.DataFrame, modalities: Modalities, bootstrap: Bootstrap = _BOOTSTRAP) -> dict[str, Any]:
    """Summary of ``metrics.csv``.

    Args:
        table: columns ``case_id, subset_id, subset, region, metric, value, unit, empty``; NaN values are cases that
            the edge-case policy excludes.
        modalities: of the task.
        bootstrap: over cases.

    Returns:
        ``scores``: one entry per subset, region and metric, with ``n`` (cases that count), ``excluded``, ``mean``,
        ``sd`` (over cases, n - 1), ``median``, ``ci`` and ``empty`` (counts by which mask was empty);
        ``averages``: per region and metric the mean over subsets of the means over cases (the last column of the
        published tables), with ``sd`` and ``ci`` over the cases that have every evaluated subset;
        ``contribution``: metric -> region -> modality -> Shapley value over the cases that have every subset;
        ``gains``: metric -> region -> subset -> absent modality -> mean gain over the cases that have both.
        Numbers are rounded to 6 digits; None stands where a number does not exist.
    """
    scores: list[dict[str, Any]] = []
    averages: list[dict[str, Any]] = []
    subset_count = table["subset"].nunique()
    for (region, metric), block in table.groupby(["region", "metric"], sort=False):
        unit = str(block["unit"].iloc[0])
        means = []
        for _, cell in block.groupby("subset_id", sort=True):
            values = cell["value"].to_numpy(dtype=np.float64)
            entry: dict[str, Any] = {"subset": str(cell["subset"].iloc[0]), "region": region, "metric": metric}
            entry |= {"unit": unit, **_describe(values, bootstrap)}
            counts = cell["empty"].value_counts()
            entry["empty"] = {e.value: int(counts.get(e.value, 0)) for e in Empty if e is not Empty.NONE}
            scores.append(entry)
            means.append(entry["mean"])
        cases = case_means(block, subset_count)
        average: dict[str, Any] = {"region": region, "metric": metric, "unit": unit, "subsets": len(means)}
        average |= _describe(cases.to_numpy(dtype=np.float64), bootstrap)
        known = [m for m in means if m is not None]
        average["mean"] = round(float(np.mean(known)), _DIGITS) if known else None
        averages.append(average)
    return {"scores": scores, "averages": averages, **_modality_effects(table, modalities)}


def case_means(block: pd.DataFrame, subset_count: int) -> pd.Series[float]:
    """Per case the mean over its subsets, for cases that have all ``subset_count`` of them; NaN values are left out."""
    by_case = block.groupby("case_id", sort=True)
    complete = by_case["subset"].nunique() == subset_count
    return by_case["value"].mean()[complete]


def _describe(values: np.ndarray, bootstrap: Bootstrap) -> dict[str, Any]:
    kept = values[~np.isnan(values)]
    interval = bootstrap.interval(kept)
    return {
        "n": int(kept.size),
        "excluded": int(values.size - kept.size),
        "mean": _rounded(kept.mean()) if kept.size else None,
        "sd": _rounded(kept.std(ddof=1)) if kept.size > 1 else None,
        "median": _rounded(np.median(kept)) if kept.size else None,
        "ci": [_rounded(end) for end in interval] if interval else None,
    }


def _rounded(value: float) -> float:
    return round(float(value), _DIGITS)


def paired_gains(wide: pd.DataFrame, modalities: Modalities) -> dict[str, dict[str, float]]:
    """Subset -> absent modality -> mean of (score with it - score without it) over the cases that have both scores.

    The difference of two means would compare other cases where studies are incomplete: those that have a sequence may
    be easier than those that lack it.

    Args:
        wide: one row per case, one column per subset name; NaN where a case lacks it.
        modalities: of the task.
    """
    columns = {frozenset(name.split(SUBSET_SEPARATOR)): name for name in map(str, wide.columns)}
    found: dict[str, dict[str, float]] = {}
    for held, name in columns.items():
        gains = {}
        for modality in modalities:
            more = columns.get(held | {modality})
            if modality in held or more is None:
                continue
            gain = (wide[more] - wide[name]).dropna()
            if len(gain):
                gains[modality] = _rounded(gain.mean())
        found[name] = dict(sorted(gains.items(), key=lambda item: (-item[1], modalities.names.index(item[0]))))
    return found


def _modality_effects(table: pd.DataFrame, modalities: Modalities) -> dict[str, dict[str, dict[str, Any]]]:
    """``contribution`` and ``gains``; both compare subsets on the same cases only."""
    wanted = len(modalities.subsets())
    contribution: dict[str, dict[str, Any]] = {}
    gains: dict[str, dict[str, Any]] = {}
    for metric in CONTRIBUTION_METRICS:
        contribution[metric], gains[metric] = {}, {}
        for region, block in table[table["metric"] == metric].groupby("region", sort=False):
            wide = block.pivot(index="case_id", columns="subset", values="value").sort_index()
            gains[metric][str(region)] = paired_gains(wide, modalities)
            complete = wide.dropna()
            if len(wide.columns) == wanted and len(complete):
                means = {str(name): float(value) for name, value in complete.mean().items()}
                values = shapley_values(means, modalities)
                contribution[metric][str(region)] = {m: _rounded(v) for m, v in values.items()}
    return {"contribution": contribution, "gains": gains}
