"""Run a bundle's inference or evaluation: what ``medmap`` and ``medmap_monai.predict``, ``evaluate`` share."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from medmap_monai.engines.study_predictor import StudyPredictor
from medmap_monai.utils.bundle_workflow import only_given, open_workflow
from medmap_monai.utils.plain_errors import plain_errors

PathLike = str | os.PathLike[str]


def run_inference(
    studies: PathLike,
    bundle: PathLike,
    output: PathLike,
    *,
    overlays: Sequence[str] = (),
    edition: str | None = None,
    device: str | None = None,
    resample: bool = False,
    overwrite: bool = False,
    reliability: PathLike | None = None,
    trust: bool = True,
    settings: Mapping[str, Any] | None = None,
    attach: Callable[[StudyPredictor], None] | None = None,
) -> StudyPredictor:
    """Segment studies with a bundle's ``inference.json``.

    Args:
        studies: one study's folder, a folder of many, or a CSV/JSON manifest.
        bundle: the bundle's folder, or the name of one that came with this package.
        output: folder of the label maps and ``predictions.csv``.
        overlays: configurations merged over ``inference.json``.
        edition: names and label values of the studies; detected when None.
        device: where to run; the best there is when None.
        resample: bring modalities with different grids to the reference grid.
        overwrite: segment again what is done already.
        reliability: expected quality of these weights; the bundle's own ``models/reliability.json`` when None.
        trust: False warns that a bundle is code.
        settings: any other value of the configuration, by its id.
        attach: called with the predictor before it runs.

    Returns:
        the predictor after its run: ``rows``, ``finished``, and the records as ``data_loader.dataset.data``.

    Raises:
        StudiesFailedError: some studies failed; the others are done.
        OSError, ValueError: nothing could be done; the message says why.
    """
    overrides = {
        "dataset_dir": os.fspath(studies),
        "output_dir": os.fspath(output),
        "edition": edition,
        "device": device,
        "resample": resample or None,
        "overwrite": overwrite or None,
    }
    with plain_errors():
        workflow = open_workflow(
            bundle, "inference", overlays, {**only_given(overrides), **(settings or {})}, trust=trust
        )
        predictor: StudyPredictor = workflow.parser.get_parsed_content("evaluator")
        if reliability is not None:
            predictor.reliability = reliability
        if attach is not None:
            attach(predictor)
        workflow.run()
    return predictor


def run_evaluation(
    dataset: PathLike,
    bundle: PathLike,
    output: PathLike,
    *,
    overlays: Sequence[str] = (),
    subsets: Sequence[str] | None = None,
    edition: str | None = None,
    split: PathLike | None = None,
    fold: str | None = None,
    device: str | None = None,
    resample: bool = False,
    trust: bool = True,
    settings: Mapping[str, Any] | None = None,
) -> dict[str, Any] | None:
    """Score subsets of the modalities of every study with a bundle's ``evaluate.json``.

    Args:
        dataset: folder of studies with labels, or a manifest.
        bundle: the bundle's folder, or the name of one that came with this package.
        output: folder of ``metrics.csv``, ``summary.json`` and the rest; finished cases in it are kept.
        overlays: configurations merged over ``evaluate.json``.
        subsets: names such as ``flair+t2``; None means all.
        edition: names and label values of the studies; detected when None.
        split, fold: only the cases of a split file, and of its ``train``, ``val`` or ``test``.
        device: where to run; the best there is when None.
        resample: bring modalities with different grids to the reference grid.
        trust: False warns that a bundle is code.
        settings: any other value of the configuration, by its id, such as ``protocol``.

    Returns:
        the content of ``summary.json``; None when other shards are not done yet.

    Raises:
        EvaluationIncompleteError: some studies failed; the others are done.
        StaleResultsError: ``output`` holds results of other weights or settings.
        OSError, ValueError: nothing could be done; the message says why.
    """
    overrides = {
        "dataset_dir": os.fspath(dataset),
        "output_dir": os.fspath(output),
        "subsets": list(subsets) if subsets else None,
        "edition": edition,
        "split_file": None if split is None else os.fspath(split),
        "fold": fold,
        "device": device,
        "resample": resample or None,
    }
    with plain_errors():
        workflow = open_workflow(
            bundle, "evaluate", overlays, {**only_given(overrides), **(settings or {})}, trust=trust
        )
        results = workflow.run()
    return results[-1] if results else None
