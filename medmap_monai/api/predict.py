"""Segment studies from Python: the same run as ``medmap predict``."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, overload

import nibabel as nib

from medmap_monai.api.segmentation import Segmentation, read_segmentation
from medmap_monai.api.study_files import CASE_ID, ImageInput, write_study
from medmap_monai.engines.run_bundle import run_inference
from medmap_monai.engines.studies_failed import StudiesFailedError
from medmap_monai.utils.bundle_workflow import open_workflow
from medmap_monai.utils.find_bundle import default_bundle

PathLike = str | os.PathLike[str]


@overload
def predict(
    studies: Mapping[str, ImageInput],
    bundle: PathLike | None = None,
    output: None = None,
    *,
    overlays: Sequence[str] = (),
    edition: str | None = None,
    device: str | None = None,
    resample: bool = False,
    settings: Mapping[str, Any] | None = None,
) -> Segmentation: ...


@overload
def predict(
    studies: PathLike,
    bundle: PathLike | None = None,
    output: PathLike = ...,
    *,
    overlays: Sequence[str] = (),
    edition: str | None = None,
    device: str | None = None,
    resample: bool = False,
    overwrite: bool = False,
    settings: Mapping[str, Any] | None = None,
) -> dict[str, Segmentation]: ...


def predict(
    studies: Mapping[str, ImageInput] | PathLike,
    bundle: PathLike | None = None,
    output: PathLike | None = None,
    *,
    overlays: Sequence[str] = (),
    edition: str | None = None,
    device: str | None = None,
    resample: bool = False,
    overwrite: bool = False,
    settings: Mapping[str, Any] | None = None,
) -> Segmentation | dict[str, Segmentation]:
    """Segment one study given as images, or every study of a folder, with whatever modalities exist.

    Args:
        studies: image by modality name: a path, a nibabel image, a ``MetaTensor``, or a pair of array (X, Y, Z) and
            affine; any non-empty subset of the bundle's modalities. Or a folder of one study or many, or a manifest.
        bundle: the bundle, with its weights in ``models/``: a folder, or the name of one that came with the package;
            None: ``brats_starter``.
        output: with a folder: where label maps and ``predictions.csv`` go; what is done there already is kept.
        overlays: configurations merged over the bundle's ``inference.json``, such as ``phantom``.
        edition: data set whose label values are written and whose file names are read; detected when None.
        device: ``cpu``, ``cuda``, ``cuda:1``; the best there is when None.
        resample: bring modalities with different grids to the grid of the first one instead of failing.
        overwrite: with a folder: segment again what is done already.
        settings: any other value of the configuration, by its id, such as ``{"sw_batch_size": 4}``.

    Returns:
        a :class:`~medmap_monai.api.segmentation.Segmentation` for one study; for a folder one per case id, those of
        an earlier run into the same output included.

    Raises:
        ValueError: an image that cannot be used, an unknown modality, weights that do not fit; names what and why.
        StudiesFailedError: with a folder: some studies failed, the others are done; ``failures`` says why by case id.
        OSError: no bundle, no weights, no studies, or an output folder that is not writable.

    Example:
        >>> import medmap_monai as mm
        >>> seg = mm.predict({"flair": "f.nii.gz", "t1ce": "c.nii.gz"})  # doctest: +SKIP
        >>> seg.label_map.shape, seg.affine.shape, seg.labels  # doctest: +SKIP
        ((240, 240, 155), (4, 4), {0: 'background', 1: 'NCR', 2: 'ED', 4: 'ET'})
    """
    bundle = default_bundle() if bundle is None else bundle
    options: dict[str, Any] = {
        "overlays": overlays,
        "edition": edition,
        "device": device,
        "resample": resample,
        "settings": settings,
    }
    if isinstance(studies, Mapping):
        if output is not None:
            raise ValueError("a study given as images returns its label map; write it with nibabel.save(result.image)")
        return _one_study(studies, bundle, options)
    if output is None:
        raise ValueError(f"studies of a folder are written to files: say where with output= (studies: {studies})")
    predictor = run_inference(studies, bundle, output, overwrite=overwrite, **options)
    done = [case for case, row in sorted(predictor.rows.items()) if row["status"] == "ok"]
    return {case: read_segmentation(Path(output), case) for case in done}


def _one_study(images: Mapping[str, ImageInput], bundle: PathLike, options: dict[str, Any]) -> Segmentation:
    configured = open_workflow(bundle, "inference", options["overlays"], options["settings"]).parser
    modalities = tuple(configured.get_parsed_content("modalities"))
    with TemporaryDirectory(prefix="medmap-") as folder:
        manifest = write_study(images, modalities, Path(folder))
        try:
            predictor = run_inference(manifest, bundle, Path(folder, "out"), **options)
        except StudiesFailedError as error:
            raise ValueError("; ".join(error.failures.values())) from error
        found = read_segmentation(predictor.output_dir, CASE_ID)
        image = nib.Nifti1Image(found.label_map.copy(), found.affine, found.image.header)  # the file goes
    return replace(found, image=image, path=None)
