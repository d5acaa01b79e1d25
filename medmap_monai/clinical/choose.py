"""Which image of a study becomes which modality."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medmap_monai.clinical.recognise import recognise
from medmap_monai.clinical.source import SourceImage, SourceStudy

#: One of two candidates is taken without asking where its slices are this much thinner: a 3-D beside a 2-D acquisition.
_CLEARLY_THINNER = 1.5


@dataclass(frozen=True)
class Choice:
    """What was decided about the images of a study.

    images: modality -> image. reasons: modality -> why.
    left_out: (label, reason) of images that are no input.
    unclear: (label, reason) of images that need the user's word; without it they are not used.
    notes: remarks for people.
    """

    images: Mapping[str, SourceImage]
    reasons: Mapping[str, str]
    left_out: tuple[tuple[str, str], ...]
    unclear: tuple[tuple[str, str], ...]
    notes: tuple[str, ...] = ()


def choose_images(study: SourceStudy, given: Mapping[str, str] | None = None) -> Choice:
    """Decide by recognition, and by the user's word where there is one.

    Args:
        study: what was found.
        given: modality -> file, folder, file name or series description of the image that the user names; the word
            ``none`` leaves a modality out.

    Raises:
        ValueError: an image that the user names is not in the study, is not one image, or is named twice.
    """
    words = dict(given or {})
    named = {modality: _named(study, word) for modality, word in words.items() if word.lower() != "none"}
    for modality, given_image in named.items():
        first = next(name for name, known in named.items() if known == given_image)
        if first != modality:
            told = f"{given_image.label} is named for more than one: {first} and {modality}"
            raise ValueError(f"study {study.name}: {told}")
    candidates: dict[str, list[SourceImage]] = defaultdict(list)
    reasons: dict[str, str] = {}
    left_out, unclear, notes = [], [], list(study.notes)
    for image in study.images:
        if image in named.values():
            continue
        seen = recognise(image.facts)
        if image.refused and not (seen.left_out or seen.modality is None):
            left_out.append((image.label, image.refused))
            notes.append(f"{image.label} would be {seen.modality}, but {image.refused}")
        elif image.refused:
            left_out.append((image.label, image.refused))
        elif seen.modality is not None and words.get(seen.modality) is None:
            candidates[seen.modality].append(image)
            reasons.setdefault(f"{seen.modality}/{image.key}", seen.reason)
        elif seen.modality is not None:
            left_out.append((image.label, f"{seen.modality} was named by the user"))
        elif seen.left_out:
            left_out.append((image.label, seen.reason))
        else:
            unclear.append((image.label, seen.reason))
    images, why = dict(named), dict.fromkeys(named, "named by the user")
    for modality, found in candidates.items():
        best = _best(found)
        if best is None:
            both = " and ".join(image.label for image in found)
            unclear += [(image.label, f"{len(found)} images look like {modality}: {both}") for image in found]
            continue
        images[modality], why[modality] = best, reasons[f"{modality}/{best.key}"]
        for other in found:
            if other is not best:
                left_out.append((other.label, f"{modality} is taken from {best.label}, whose slices are thinner"))
    return Choice(images, why, tuple(left_out), tuple(unclear), tuple(notes))


def _best(found: Sequence[SourceImage]) -> SourceImage | None:
    """The only one, or the one with clearly thinner slices; None where that does not decide."""
    if len(found) == 1:
        return found[0]
    if any(image.spacing is None for image in found):
        return None
    ordered = sorted(found, key=_thickness)
    return ordered[0] if _thickness(ordered[0]) * _CLEARLY_THINNER <= _thickness(ordered[1]) else None


def _thickness(image: SourceImage) -> float:
    return max(image.spacing or (float("inf"),))


def _named(study: SourceStudy, word: str) -> SourceImage:
    path = Path(word).absolute()
    hits = [
        image
        for image in study.images
        if any(path == file.absolute() or path in file.absolute().parents for file in image.files)
    ]
    if not hits:
        hits = [image for image in study.images if word in (image.label, image.files[0].name)]
    if len(hits) != 1:
        known = ", ".join(repr(image.label) for image in study.images)
        what = "is not in the study" if not hits else f"is {len(hits)} images"
        raise ValueError(f"study {study.name}: {word!r} {what}; there are {known}")
    if hits[0].refused:
        raise ValueError(f"study {study.name}: {hits[0].label} cannot be used: {hits[0].refused}")
    return hits[0]
