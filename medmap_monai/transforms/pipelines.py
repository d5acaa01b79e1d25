"""The preprocessing pipelines that bundles name in JSON: training, evaluation, inference."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.transforms import (
    Compose,
    CropForegroundd,
    EnsureTyped,
    NormalizeIntensityd,
    Orientationd,
    RandFlipd,
    RandSpatialCropd,
    Spacingd,
    SpatialPadd,
    SqueezeDimd,
)
from monai.utils import ensure_tuple_rep, look_up_option

from medmap_monai.data.edition import Edition
from medmap_monai.transforms.imbalanced_dropout import ImbalancedModalityDropoutd, MissingModalities
from medmap_monai.transforms.intensity_jitter import RandIntensityJitterd
from medmap_monai.transforms.load_study import LoadStudyd
from medmap_monai.transforms.modality_dropout import DropoutRates, RandModalityDropoutd
from medmap_monai.transforms.pipeline_settings import says_settings
from medmap_monai.transforms.plane_rotation import RandPlaneRotationd
from medmap_monai.transforms.require_shown import RequireShownd
from medmap_monai.transforms.restore import RestoreToOriginald, SaveLabelMapd
from medmap_monai.transforms.shown import SHOWN
from medmap_monai.transforms.synthesize_study import SynthesizeStudyd
from medmap_monai.transforms.union_crop import UnionCropd
from medmap_monai.transforms.union_normalize import UnionNormalized
from medmap_monai.utils.grouped import grouped

PROTOCOLS = ("clinical", "legacy")
MODES = ("pdt", "idt", "idt_drop")
AUGMENTATIONS = ("published", "light", "none")
_IMAGE_AND_LABEL = ("image", "label")


def not_zero(image: torch.Tensor) -> torch.Tensor:
    """Foreground: the voxels that are not zero (a function with a name, so that pipelines can be pickled)."""
    return image != 0


@says_settings(random=("augment", "dropout"))
def train_transforms(
    modalities: Sequence[str],
    protocol: str = "clinical",
    mode: str = "pdt",
    roi_size: Sequence[int] | int | None = None,
    augment: str = "published",
    dropout: DropoutRates | Mapping[str, Any] | None = None,
    missing: MissingModalities | Mapping[str, Any] | None = None,
    resample: bool = False,
    orientation: str | None = None,
    spacing: Sequence[float] | None = None,
    crop_foreground: bool = True,
    spatial_dims: int = 3,
) -> Compose:
    """Study -> training sample of plain tensors; everything before the first random transform can be cached.

    Args:
        modalities: names in channel order.
        protocol: ``clinical``: each modality is normalised over its own non-zero voxels, and the crop box comes from
            the modalities that the case has. ``legacy``: published preprocessing, box and statistics from all.
        mode: ``pdt``: everything on disk is used, ``modality_mask`` is drawn anew each time. ``idt``: each case keeps
            the subset that the split (``available`` in the item) or ``missing`` gives it, and what
            lies outside is zero. ``idt_drop``: the same, and ``modality_mask`` is a random part of that subset.
        roi_size: random crop in voxels (``spatial_dims`` numbers, or one for all); None keeps whole volumes or slices.
        augment: ``published``: plane rotation, intensity jitter per slice, flips. ``light``: intensity jitter per
            modality, flips. ``none``.
        dropout: what is hidden at random, a :class:`~medmap_monai.transforms.modality_dropout.DropoutRates` or its
            arguments (modes ``pdt`` and ``idt_drop``).
        missing: what each case lacks, a :class:`~medmap_monai.transforms.imbalanced_dropout.MissingModalities` or its
            arguments (modes ``idt`` and ``idt_drop``); needed only where the data set's items carry no ``available``.
        resample: bring modalities with different grids together instead of failing.
        orientation: axis codes such as ``RAS``; None keeps the orientation on disk.
        spacing: voxel size in mm; None keeps it.
        crop_foreground: with ``roi_size`` in the clinical protocol, cut background away first, so that random crops
            see tissue.
        spatial_dims: 2 for networks that work on slices: each time, one random slice along the last axis is drawn.

    Returns:
        transforms from ``{"study", "available"?, ...}`` to ``image`` float32 (M, ...), ``label`` uint8 (1, ...),
        ``present_mask``, ``modality_mask`` bool (M,) and ``case_id``.
    """
    look_up_option(mode, MODES)
    look_up_option(augment, AUGMENTATIONS)
    imbalanced = mode != "pdt"
    hidden, lacking = grouped(DropoutRates, dropout), grouped(MissingModalities, missing)
    if not imbalanced and (lacking.subsets is not None or lacking.rates is not None):
        raise ValueError("mode 'pdt' uses all modalities on disk; missing subsets and rates need 'idt' or 'idt_drop'")
    legacy = look_up_option(protocol, PROTOCOLS) == "legacy"
    grant = ImbalancedModalityDropoutd(
        keys="image", modalities=modalities, subsets=lacking.subsets, rates=lacking.rates, seed=lacking.seed
    )
    availability = "ignore" if not imbalanced else "defer" if legacy else "enforce"
    steps: list[Any] = [
        LoadStudyd(modalities, availability, label="required", resample=resample),
        *([grant] if imbalanced and not legacy else []),
        *_grid(orientation, spacing),
    ]
    if legacy:
        steps += [UnionCropd(_IMAGE_AND_LABEL), UnionNormalized("image"), *([grant] if imbalanced else [])]
    else:
        if roi_size is not None and crop_foreground:
            steps.append(_crop_foreground(_IMAGE_AND_LABEL))
        steps.append(NormalizeIntensityd("image", nonzero=True, channel_wise=True))
    steps.append(RequireShownd(modalities))
    look_up_option(spatial_dims, (2, 3))
    crop = ensure_tuple_rep(-1 if roi_size is None else roi_size, spatial_dims)  # -1: as large as the volume
    if spatial_dims == 2:
        crop = (*crop, 1)
    if roi_size is not None:
        steps.append(SpatialPadd(_IMAGE_AND_LABEL, spatial_size=crop))
    steps.append(_typed(track_meta=False))
    if max(crop) > 0:
        steps.append(RandSpatialCropd(_IMAGE_AND_LABEL, roi_size=crop, random_size=False))
        steps.append(_typed(track_meta=False))  # a store may keep half precision
    if spatial_dims == 2:
        steps.append(SqueezeDimd(_IMAGE_AND_LABEL, dim=-1))
    steps += _augmentation(augment, legacy, spatial_dims)
    steps.append(_typed(track_meta=False))  # MONAI's spatial transforms make MetaTensors again
    if mode != "idt":
        steps.append(RandModalityDropoutd(modalities=modalities, rates=hidden.rates, prob=hidden.prob))
    return Compose(steps)


def eval_transforms(
    modalities: Sequence[str],
    edition: str | Edition | None = None,
    protocol: str = "clinical",
    resample: bool = False,
    orientation: str | None = None,
    spacing: Sequence[float] | None = None,
    label: str = "optional",
    label_grid: str = "image",
    crop_foreground: bool | Sequence[int] = False,
) -> Compose:
    """Study -> whole volume with what exists of it, and its label where there is one; MetaTensors.

    See :func:`train_transforms`; ``label`` as in ``LoadStudy``.

    Args:
        label_grid: ``image``: the label gets the orientation and spacing of the image, as validation during training
            needs it. ``own``: it stays as it is on disk, for evaluation, which brings predictions there; the sample
            then also says where its modalities show something (``shown``).
        crop_foreground: in the clinical protocol, cut away what no loaded modality shows, for networks whose window
            holds a whole organ: it then lies in the middle, as in training. A shape adds background around what is
            left, up to so many voxels: networks that normalise over a window see how much of it is background.
    """
    keys = {"image": _IMAGE_AND_LABEL, "own": ("image",)}[look_up_option(label_grid, ("image", "own"))]
    legacy = look_up_option(protocol, PROTOCOLS) == "legacy"
    steps: list[Any] = [
        LoadStudyd(modalities, edition=edition, label=label, resample=resample, shown=label_grid == "own"),
        *_grid(orientation, spacing, keys),
    ]
    if legacy:
        steps += [UnionCropd((*_IMAGE_AND_LABEL, SHOWN), allow_missing_keys=True), UnionNormalized("image")]
    else:
        if crop_foreground:
            steps.append(_crop_foreground(keys))
        if isinstance(crop_foreground, Sequence):
            steps.append(SpatialPadd(keys, crop_foreground, allow_missing_keys=True))
        steps.append(NormalizeIntensityd("image", nonzero=True, channel_wise=True))
    return Compose([*steps, RequireShownd(modalities), _typed(track_meta=True)])


def inference_transforms(
    modalities: Sequence[str],
    edition: str | Edition | None = None,
    protocol: str = "clinical",
    resample: bool = False,
    orientation: str | None = None,
    spacing: Sequence[float] | None = None,
    crop_foreground: bool | Sequence[int] = False,
) -> Compose:
    """:func:`eval_transforms` that never looks at a label."""
    return eval_transforms(
        modalities,
        edition,
        protocol,
        resample,
        orientation,
        spacing,
        label="none",
        label_grid="own",
        crop_foreground=crop_foreground,
    )


def synthetic_transforms(
    modalities: Sequence[str],
    shape: Sequence[int],
    spacing: float,
    priors: str | os.PathLike[str] | Mapping[str, Any] = "default",
    augment: str = "light",
    dropout: DropoutRates | Mapping[str, Any] | None = None,
) -> Compose:
    """Label map of a brain (``anatomy`` in the item) -> training sample of a synthetic study, each time another one.

    Args:
        modalities: names in channel order.
        shape, spacing, priors: see :class:`~medmap_monai.transforms.synthesize_study.SynthesizeStudy`.
        augment: ``light``: intensity jitter per modality. ``none``: for validation, where every modality is seen too.
        dropout: see :func:`train_transforms`.
    """
    hidden = grouped(DropoutRates, dropout)
    steps: list[Any] = [
        SynthesizeStudyd(modalities, shape=shape, spacing=spacing, priors=priors),
        NormalizeIntensityd("image", nonzero=True, channel_wise=True),
    ]
    training = look_up_option(augment, ("light", "none")) == "light"
    if training:
        steps.append(RandIntensityJitterd("image", per="channel"))
    steps.append(_typed(track_meta=False))
    if training:
        steps.append(RandModalityDropoutd(modalities=modalities, rates=hidden.rates, prob=hidden.prob))
    return Compose(steps)


def save_transforms(
    output_dir: str | os.PathLike[str], preprocessing: Compose | None = None, edition: str | Edition | None = None
) -> Compose:
    """Prediction -> label file on the study's own grid; ``pred`` becomes class indices there, ``saved_to`` the path.

    Args:
        output_dir: folder for the label files.
        preprocessing: the pipeline that loads the studies; an edition given there decides the label values on disk.
        edition: the same, given here.
    """
    loaders = [] if preprocessing is None else [t for t in preprocessing.transforms if isinstance(t, LoadStudyd)]
    if edition is None and loaders:
        edition = loaders[0].loader.edition
    return Compose([RestoreToOriginald("pred"), SaveLabelMapd("pred", output_dir, edition)])


def fixed_grid(pipeline: Any) -> dict[str, Any]:
    """The ``orientation`` and ``spacing`` that a pipeline brings studies to; empty where it keeps their grid."""
    found: dict[str, Any] = {}
    for transform in getattr(pipeline, "transforms", ()):
        if isinstance(transform, Orientationd):
            found["orientation"] = transform.ornt_transform.axcodes
        elif isinstance(transform, Spacingd):
            found["spacing"] = [float(size) for size in transform.spacing_transform.pixdim]
    return found


def _grid(
    orientation: str | None, spacing: Sequence[float] | None, keys: Sequence[str] = _IMAGE_AND_LABEL
) -> list[Any]:
    steps: list[Any] = []
    if orientation is not None:
        steps.append(Orientationd(keys, axcodes=orientation, labels=None, allow_missing_keys=True))
    if spacing is not None:
        mode = ("bilinear", "nearest")[: len(keys)]
        steps.append(Spacingd(keys, pixdim=spacing, mode=mode, allow_missing_keys=True))
    return steps


def _crop_foreground(keys: Sequence[str]) -> CropForegroundd:
    return CropForegroundd(
        keys,
        source_key="image",
        select_fn=not_zero,
        allow_smaller=True,
        start_coord_key=None,
        end_coord_key=None,
        allow_missing_keys=True,
    )


def _typed(track_meta: bool) -> EnsureTyped:
    dtype = (torch.float32, torch.uint8)
    return EnsureTyped(_IMAGE_AND_LABEL, dtype=dtype, track_meta=track_meta, allow_missing_keys=True)


def _augmentation(augment: str, legacy: bool, spatial_dims: int) -> list[Any]:
    if augment == "none":
        return []
    steps: list[Any] = []
    if augment == "published":
        # the published fill of images is -1, an arbitrary z-score; labels are always filled with background
        steps.append(RandPlaneRotationd(_IMAGE_AND_LABEL, fill=(-1.0 if legacy else 0.0, 0)))
        # per slice of the first axis, as published; a row of a single slice is no slice
        per = "slice" if spatial_dims == 3 else "channel"
        steps.append(RandIntensityJitterd("image", per=per, nonzero=not legacy))
    else:
        steps.append(RandIntensityJitterd("image", per="channel"))
    return steps + [RandFlipd(_IMAGE_AND_LABEL, prob=0.5, spatial_axis=axis) for axis in range(spatial_dims)]
