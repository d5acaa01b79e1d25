"""Prepare every subset of the real study, and write the table of docs/reference/prepare.md. Minutes; no test.

    python -m tests.clinical.campaign --markdown table.md
    python -m tests.clinical.campaign --dicom --markdown table.md

Each pair of images is registered once, and each brain looked for once, for all subsets that need it: both depend on
these images and the seed alone. What is compared: where a subset's preparation puts every sequence, against where the
other preprocessing put it (:class:`~tests.clinical.real_study.OtherPreprocessing`).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory

from medmap_monai.clinical.choose import choose_images
from medmap_monai.clinical.find_studies import find_studies, nifti_image
from medmap_monai.clinical.prepare_study import PreparedImages, PrepareOptions, prepare_images
from medmap_monai.clinical.source import SourceImage, SourceStudy
from medmap_monai.clinical.volume import read_nifti
from tests.clinical.real_study import MODALITIES, OtherPreprocessing, native_files, remembered
from tests.clinical.scanner import write_dicom_study


def prepare_subset(images: Mapping[str, SourceImage], subset: tuple[str, ...]) -> PreparedImages:
    """Recognise and prepare some of the images, which must be taken for what they are."""
    choice = choose_images(SourceStudy("real", tuple(images[name] for name in subset)))
    if {name: image.key for name, image in choice.images.items()} != {name: images[name].key for name in subset}:
        raise SystemExit(f"{subset}: recognised {dict(choice.images)}, unclear {choice.unclear}")
    return prepare_images(choice, PrepareOptions())


def row(subset: tuple[str, ...], prepared: PreparedImages, other: OtherPreprocessing) -> str:
    """A line of the table."""
    shifts = other.shifts(prepared)
    sharp = [registration.sharpness for registration in prepared.registrations.values()]
    cells = [
        ", ".join(subset),
        prepared.reference,
        prepared.skull["on"],
        f"{max(shifts.values()):.2f}" if shifts else "",
        f"{min(sharp):.2f} to {max(sharp):.2f}" if sharp else "",
        f"{other.dice(prepared):.3f}",
        f"{prepared.skull['brain_ml'] / 1000:.2f}",
        "; ".join(prepared.warnings),
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Parse the arguments, prepare all subsets, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dicom", action="store_true", help="from a DICOM export that is written first")
    parser.add_argument("--largest-only", action="store_true", help="the complete study alone")
    parser.add_argument("--markdown", type=Path, help="file for the table")
    given = parser.parse_args()
    files = native_files()
    with TemporaryDirectory() as folder, remembered():
        images = {name: nifti_image(path) for name, path in files.items()}
        if given.dicom:
            write_dicom_study(Path(folder) / "export", {name: read_nifti(path) for name, path in files.items()})
            (study,) = find_studies(Path(folder) / "export")
            images = dict(choose_images(study).images)
        start = time.process_time()
        complete = prepare_subset(images, MODALITIES)
        print(
            f"complete study: {time.process_time() - start:.0f} s of processor time; steps {complete.seconds}",
            flush=True,
        )
        other = OtherPreprocessing(complete)
        columns = ["sequences", "stays", "brain found on", "largest shift (mm)", "sharpness", "Dice of the brain"]
        columns += ["brain (l)", "warnings"]
        rows = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
        for size in (4,) if given.largest_only else (4, 3, 2, 1):
            for subset in combinations(MODALITIES, size):
                rows.append(row(subset, prepare_subset(images, subset), other))
                print(rows[-1], flush=True)
    if given.markdown:
        given.markdown.write_text("\n".join(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
