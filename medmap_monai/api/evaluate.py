"""Evaluate a bundle from Python: the same run as ``medmap evaluate``."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from medmap_monai.engines.results_store import METRICS_FILE, read_metrics
from medmap_monai.engines.run_bundle import run_evaluation
from medmap_monai.utils.bundle_workflow import only_given

PathLike = str | os.PathLike[str]


class Evaluation(NamedTuple):
    """What an evaluation found.

    metrics: one row per case, subset, region and metric (``metrics.csv``).
    summary: means with their confidence intervals, and what they belong to (``summary.json``).
    """

    metrics: pd.DataFrame
    summary: dict[str, Any]


def evaluate(
    dataset: PathLike,
    bundle: PathLike,
    output: PathLike,
    *,
    overlays: Sequence[str] = (),
    subsets: Sequence[str] | None = None,
    edition: str | None = None,
    split: PathLike | None = None,
    fold: str | None = None,
    protocol: str | None = None,
    device: str | None = None,
    resample: bool = False,
    settings: Mapping[str, Any] | None = None,
) -> Evaluation:
    """Score every subset of the modalities of every study of ``dataset``.

    The arguments are those of :func:`~medmap_monai.engines.run_bundle.run_evaluation`, and ``protocol``: ``clinical``
    or ``legacy``, the published preprocessing; the bundle's when None. Finished cases in ``output`` are kept: call
    again after an interruption.

    Raises:
        EvaluationIncompleteError: some studies failed; the others are done.
        StaleResultsError: ``output`` holds results of other weights or settings.
        ValueError, OSError: nothing could be done; the message says why.

    Example:
        >>> import medmap_monai as mm
        >>> found = mm.evaluate("studies", "brats_unet_dropout", "evaluation")  # doctest: +SKIP
        >>> found.metrics.query("metric == 'dice'").groupby("subset")["value"].mean()  # doctest: +SKIP
    """
    summary = run_evaluation(
        dataset,
        bundle,
        output,
        overlays=overlays,
        subsets=subsets,
        edition=edition,
        split=split,
        fold=fold,
        device=device,
        resample=resample,
        settings={**only_given({"protocol": protocol}), **(settings or {})},
    )
    if summary is None:
        raise ValueError(f"this share of {output} is done, others are not: evaluate them, then merge (merge_only)")
    return Evaluation(read_metrics(Path(output) / METRICS_FILE), summary)
