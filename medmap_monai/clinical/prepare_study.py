"""One study: from the images of a scanner to sequences in one place, on one grid, without skull."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import SimpleITK as sitk

from medmap_monai.clinical.choose import Choice
from medmap_monai.clinical.grid import (
    ORIENTATION,
    SPACING_MM,
    crop_to,
    cropped,
    field_problem,
    is_prepared,
    isotropic_grid,
)
from medmap_monai.clinical.read_image import read_image
from medmap_monai.clinical.register import Registration, RegistrationError, register_rigid
from medmap_monai.clinical.skull_strip import SKULL_STRIPPERS, find_brain
from medmap_monai.clinical.volume import Volume
from medmap_monai.transforms.background import find_background, foreground, is_brain_alone, without_background

#: images that are preferred where several serve as well: as the one that stays, and to find the brain on
REFERENCE_ORDER = ("t1ce", "t1", "flair", "t2")
BRAIN_ORDER = ("t1", "t1ce", "flair", "t2")  # by what deepbet makes of them: docs/reference/prepare.md
AUTO, NONE = "auto", "none"

Progress = Callable[[str], None]


class PrepareError(ValueError):
    """A study that cannot be prepared; the message names the study, the image and what to do."""


@dataclass(frozen=True)
class PrepareOptions:
    """How studies are prepared.

    skull_strip: ``auto`` (deepbet, unless the images show a brain alone), a name of ``SKULL_STRIPPERS``, or ``none``.
    orientation: axes of the grid, such as ``LPS``.
    spacing: voxel size in mm.
    ignore_unclear: go on without images that nobody named, instead of asking for the user's word.
    seed: of the samples that registration draws.
    """

    skull_strip: str = AUTO
    orientation: str = ORIENTATION
    spacing: float = SPACING_MM
    ignore_unclear: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        allowed = (AUTO, NONE, *SKULL_STRIPPERS)
        if self.skull_strip not in allowed:
            raise ValueError(f"skull_strip {self.skull_strip!r} is unknown; allowed are {', '.join(allowed)}")


class PreparedImages(NamedTuple):
    """What became of a study's images.

    volumes: modality -> prepared image; empty when ``passed_through``.
    mask: brain on the same grid; None when no brain was looked for.
    registrations: modality -> where it lay (not the reference).
    originals: modality -> image as it was, but for its background, which is zero.
    """

    volumes: dict[str, Volume]
    mask: Volume | None
    reference: str
    registrations: dict[str, Registration]
    originals: dict[str, Volume]
    skull: dict[str, Any]
    warnings: list[str]
    notes: list[str]
    passed_through: bool
    seconds: dict[str, float]


def prepare_images(choice: Choice, options: PrepareOptions, progress: Progress = lambda step: None) -> PreparedImages:
    """Read, register, resample and skull-strip the chosen images.

    Every sequence is registered to the one with the best resolution through its slices. One that cannot be registered
    with confidence is left out, with a warning; the study fails where nothing confirms the reference itself.

    Raises:
        PrepareError: nothing chosen, an unreadable image, or no two sequences that fit together.
        SkullStripError: no brain was found.
        ExtraNeededError: the skull-stripping package is not installed.
    """
    clock = _Clock(progress)
    originals: dict[str, Volume] = {}
    for modality, image in choice.images.items():
        clock(f"read {modality}")
        try:
            originals[modality] = read_image(image)
        except ValueError as error:
            raise PrepareError(f"{modality}: {error}") from error
    if not originals:
        raise PrepareError("no image of a known sequence")
    if is_prepared(list(originals.values())):
        clock.stop()
        reference = next(iter(originals))
        skull = {"tool": NONE, "reason": "the images show a brain alone"}
        return PreparedImages({}, None, reference, {}, originals, skull, [], [], True, clock.seconds)
    for modality, volume in originals.items():
        problem = field_problem(volume)
        if problem:
            raise PrepareError(f"{modality}: {choice.images[modality].label}: {problem}")
    originals, notes = _with_background_zero(originals)
    reference = best_reference(originals)
    registrations, warnings = _register(reference, originals, options, clock)
    clock("resample")
    grid = isotropic_grid(originals[reference], options.orientation, options.spacing)
    volumes = {}
    for modality in originals:
        if modality == reference or modality in registrations:
            to_own = registrations[modality].matrix if modality in registrations else None
            volumes[modality] = Volume(_smooth_on_grid(originals[modality], grid, to_own), grid.affine)
    mask, skull = _brain(volumes, originals, registrations, options, clock, warnings)
    clock("crop")
    box = crop_to(grid, mask)
    brain = cropped(Volume(mask.astype(np.uint8), grid.affine), box)
    kept = {m: cropped(Volume(np.where(mask, v.data, np.float32(0)), v.affine), box) for m, v in volumes.items()}
    for modality, volume in kept.items():
        seen = float((volume.data[brain.data > 0] != 0).mean())
        if seen < 0.9:
            warnings.append(f"{modality} shows only {seen:.0%} of the brain")
    clock.stop()
    return PreparedImages(
        kept, brain, reference, registrations, originals, skull, warnings, notes, False, clock.seconds
    )


def _with_background_zero(originals: Mapping[str, Volume]) -> tuple[dict[str, Volume], list[str]]:
    """Images whose padding is 0, which is what interpolation fills in beyond them; and what to tell."""
    zeroed, notes = dict(originals), []
    for modality, volume in originals.items():
        found = find_background(volume.data)
        if found is not None and found.value != 0:
            zeroed[modality] = Volume(without_background(volume.data, found.value), volume.affine)
            notes.append(f"{modality}: {found.note}")
    return zeroed, notes


def best_reference(originals: Mapping[str, Volume]) -> str:
    """The sequence with the thinnest slices; among equals the one with the finer plane, then by ``REFERENCE_ORDER``."""

    def rank(modality: str) -> tuple[float, float, int]:
        x, y, z = sorted(originals[modality].spacing)
        order = REFERENCE_ORDER.index(modality) if modality in REFERENCE_ORDER else len(REFERENCE_ORDER)
        return round(z, 1), round(x * y, 1), order

    return min(originals, key=rank)


def _register(
    reference: str, originals: Mapping[str, Volume], options: PrepareOptions, clock: _Clock
) -> tuple[dict[str, Registration], list[str]]:
    found: dict[str, Registration] = {}
    refused: dict[str, str] = {}
    warnings = []
    for modality, volume in originals.items():
        if modality == reference:
            continue
        clock(f"register {modality} to {reference}")
        try:
            found[modality] = register_rigid(originals[reference], volume, options.seed)
        except RegistrationError as error:
            refused[modality] = str(error)
        else:
            warnings += [f"{modality}: {text}" for text in found[modality].warnings]
    if refused and not found:
        told = "; ".join(f"{modality}: {text}" for modality, text in refused.items())
        raise PrepareError(
            f"nothing could be registered to {reference} ({told}). Leave out the image that does not belong here "
            f"(--{reference} none, or --{next(iter(refused))} none)"
        )
    warnings += [f"{modality} was left out, it could not be registered: {text}" for modality, text in refused.items()]
    return found, warnings


def _smooth_on_grid(volume: Volume, grid: Volume, to_own_world: np.ndarray | None) -> np.ndarray:
    """Linear interpolation; finer images are smoothed to the grid's voxel first, so that nothing aliases."""
    step = grid.spacing[0]
    data = volume.data
    widths = [0.4 * step if own < 0.7 * step else 0.0 for own in volume.spacing]
    if any(widths):
        image = sitk.GetImageFromArray(np.ascontiguousarray(data.T))
        image.SetSpacing(volume.spacing)
        for axis, width in enumerate(widths):
            if width:
                image = sitk.RecursiveGaussian(image, width, direction=axis)
        data = np.ascontiguousarray(sitk.GetArrayFromImage(image).T)
    return Volume(data, volume.affine).on_grid(grid.data.shape, grid.affine, to_own_world)


def _brain(
    volumes: Mapping[str, Volume],
    originals: Mapping[str, Volume],
    registrations: Mapping[str, Registration],
    options: PrepareOptions,
    clock: _Clock,
    warnings: list[str],
) -> tuple[np.ndarray, dict[str, Any]]:
    bare = {m for m in volumes if is_brain_alone(originals[m].data, originals[m].affine)}
    if options.skull_strip == NONE or (options.skull_strip == AUTO and bare):
        on = sorted(bare) or sorted(volumes)
        mask = np.zeros(next(iter(volumes.values())).data.shape, dtype=bool)
        for modality in on:
            own = originals[modality]
            shown = Volume(foreground(own.data).astype(np.float32), own.affine)
            to_own = registrations[modality].matrix if modality in registrations else None
            seen = volumes[modality]
            mask |= shown.on_grid(seen.data.shape, seen.affine, to_own) > 0.5
        if not bare:
            warnings.append("the images show more than a brain, and skull-stripping was switched off")
        reason = "the images show a brain alone" if bare else "switched off"
        return mask, {"tool": NONE, "reason": reason, "on": "+".join(on)}
    tool = SKULL_STRIPPERS["deepbet" if options.skull_strip == AUTO else options.skull_strip]
    on_image = next((m for m in BRAIN_ORDER if m in volumes), next(iter(volumes)))
    clock(f"find the brain on {on_image} ({tool.name})")
    mask = find_brain(volumes[on_image], tool, on_image)
    millilitres = float(mask.sum()) * volumes[on_image].voxel_ml
    told = {"tool": tool.name, "version": tool.version(), "on": on_image, "brain_ml": round(millilitres, 1)}
    return mask, told


class _Clock:
    """Seconds of every step, told as it begins."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.seconds: dict[str, float] = {}
        self._step, self._since = "", time.perf_counter()

    def __call__(self, step: str) -> None:
        self.stop()
        self._step, self._since = step, time.perf_counter()
        self.progress(step)

    def stop(self) -> None:
        """End the current step."""
        if self._step:
            self.seconds[self._step] = round(time.perf_counter() - self._since, 2)
        self._step = ""


def options_record(options: PrepareOptions) -> dict[str, Any]:
    """The options for provenance."""
    return asdict(options)


def transform_path(folder: Path, modality: str) -> Path:
    """Where the transform of a sequence is kept: the reference's world to its own, for ITK and 3D Slicer."""
    return folder / "transforms" / f"{modality}.tfm"
