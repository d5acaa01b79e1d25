"""``medmap prepare``: from DICOM or native NIfTI to studies that ``medmap predict`` reads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from medmap_monai.utils.counted import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from medmap_monai.clinical.native_results import NativeResults
    from medmap_monai.clinical.prepare_folder import PreparedStudy

ONE = "Only one study: this file, DICOM folder or series description is its {}; 'none' leaves it out."


def prepare(
    folder: Path = typer.Argument(..., help="DICOM or NIfTI: one study, or one folder per study."),
    output: Path = typer.Option(..., "--output", "-o", help="Folder for the prepared studies."),
    flair: str | None = typer.Option(None, help=ONE.format("FLAIR")),
    t1ce: str | None = typer.Option(None, help=ONE.format("T1 with contrast agent")),
    t1: str | None = typer.Option(None, help=ONE.format("T1 without contrast agent")),
    t2: str | None = typer.Option(None, help=ONE.format("T2")),
    image: list[str] = typer.Option([], help="Any other sequence by name, as NAME=IMAGE. Repeatable."),
    skull_strip: str = typer.Option("auto", help="auto, deepbet, synthstrip, hd-bet or none."),
    orientation: str = typer.Option("LPS", help="Axes of the prepared images."),
    ignore_unclear: bool = typer.Option(False, help="Go on without images that cannot be recognised."),
) -> None:
    """Sort, recognise, register and skull-strip what a scanner or a PACS exported.

    Every study becomes OUTPUT/STUDY with one 1 mm image per sequence, the transforms, and prepared.json, which says
    what was done to each file. Nothing that identifies a patient is copied. Finished studies are kept; a study that
    fails is reported, the others are finished, and the exit code is 1. Research use only.

    Examples: medmap prepare export/ --output prepared/ · medmap predict prepared/ --bundle ... --output out/
    """
    from medmap_monai.cli.errors import fail

    try:
        given = named_images({"flair": flair, "t1ce": t1ce, "t1": t1, "t2": t2}, image)
        studies = run_prepare(folder, output, given, skull_strip, orientation, ignore_unclear)
    except (OSError, ValueError, ImportError) as error:
        fail(error)
    failed = [study for study in studies if study.error]
    typer.echo(f"{counted(len(studies) - len(failed), 'study')} prepared in {output}")
    if failed:
        fail(f"{len(failed)} of {counted(len(studies), 'study')} failed:\n" + "\n".join(f"  {s.error}" for s in failed))


def named_images(options: dict[str, str | None], pairs: Sequence[str]) -> dict[str, str]:
    """The images that the user names, by modality.

    Raises:
        ValueError: a pair is not NAME=IMAGE, or a sequence is named twice.
    """
    given = {name: word for name, word in options.items() if word is not None}
    for pair in pairs:
        name, separator, word = pair.partition("=")
        if not separator or not name or not word:
            raise ValueError(f"--image {pair!r} is not of the form NAME=IMAGE")
        if name in given:
            raise ValueError(f"{name} is named twice: {given[name]} and {word}")
        given[name] = word
    return given


def run_prepare(
    folder: Path, output: Path, given: dict[str, str], skull_strip: str, orientation: str, ignore_unclear: bool
) -> list[PreparedStudy]:
    """Prepare with progress on standard error, and say of every study what became of it."""
    from rich.console import Console

    from medmap_monai.clinical.prepare_folder import prepare_folder
    from medmap_monai.clinical.prepare_study import PrepareOptions

    options = PrepareOptions(skull_strip=skull_strip, orientation=orientation, ignore_unclear=ignore_unclear)
    console = Console(stderr=True, highlight=False)

    def progress(study: str, step: str) -> None:
        console.print(f"{study}: {step} ...", markup=False)

    studies = prepare_folder(folder, output, options, given, progress)
    for study in studies:
        for line in describe(study):
            typer.echo(line)
    return studies


def describe(study: PreparedStudy) -> list[str]:
    """What became of a study, in lines for the terminal."""
    if study.error:
        return []
    record = study.record
    kept = " (done already)" if study.kept else ""
    lines = [f"{study.name}: {', '.join(record['sequences'])}{kept}"]
    for modality, sequence in record["sequences"].items():
        found = sequence["registration"]
        place = (
            f"moved {found['shift_mm']:.1f} mm, turned {found['rotation_degrees']:.1f} degrees, "
            f"sharpness {found['sharpness']:.2f}"
            if found
            else ("unchanged" if record["passed_through"] else "the others follow it")
        )
        lines.append(f"  {modality}: {sequence['source']['label']} ({sequence['recognised']}); {place}")
    lines += [f"  left out: {entry['image']} ({entry['reason']})" for entry in record["left_out"]]
    lines += [f"  not recognised: {entry['image']} ({entry['reason']})" for entry in record["unclear"]]
    return lines + [f"  warning: {text}" for text in [*record["warnings"], *record["notes"]]]


def prepare_for_prediction(
    folder: Path | None, output: Path, given: dict[str, str], skull_strip: str, ignore_unclear: bool
) -> tuple[NativeResults, list[str]]:
    """Prepare into OUTPUT/prepared; what brings predictions back to the original images, and messages of failures.

    Raises:
        ValueError: no folder, or no study could be prepared.
    """
    from medmap_monai.clinical.native_results import NativeResults

    if folder is None:
        raise ValueError("--prepare needs the folder that the images lie in")
    studies = run_prepare(folder, output / "prepared", given, skull_strip, "LPS", ignore_unclear)
    failed = [study.error for study in studies if study.error]
    if len(failed) == len(studies):
        raise ValueError("no study could be prepared:\n" + "\n".join(f"  {text}" for text in failed))
    native = NativeResults(studies, output)
    native.forget_incomplete()
    return native, failed


def tell_native_results(native: NativeResults, failed: list[str]) -> None:
    """Say what was written, and end with an error where something was not."""
    from medmap_monai.cli.errors import fail

    for name, results in native.written.items():
        seg = f", {len(results.segmentations)} DICOM SEG" if results.segmentations else ""
        typer.echo(
            f"{name}: {len(results.labels)} label maps on original images{seg}; {native.output / name}/report.html"
        )
        for note in results.notes:
            typer.secho(f"  {name}: {note}", fg=typer.colors.YELLOW)
    problems = [*failed, *native.problems.values()]
    if problems:
        fail(
            f"{counted(len(problems), 'study is', 'studies are')} incomplete:\n"
            + "\n".join(f"  {text}" for text in problems)
        )
