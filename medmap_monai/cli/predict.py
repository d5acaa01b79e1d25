"""``medmap predict``: segment studies with whatever modalities they have."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from medmap_monai.utils.counted import counted

PREPARED_NAME = "prepared"

if TYPE_CHECKING:
    from medmap_monai.engines.study_predictor import StudyPredictor


def predict(
    ctx: typer.Context,
    studies: Path | None = typer.Argument(
        None, help="One study's folder, a folder of many, or a CSV/JSON manifest. Or --MODALITY FILE for one study."
    ),
    bundle: Path | None = typer.Option(
        None, "--bundle", "-b", help="Name or folder of the bundle (default: brats_starter, where it came along)."
    ),
    output: Path = typer.Option(..., "--output", "-o", help="Folder for the label maps and predictions.csv."),
    overlay: list[str] = typer.Option([], help="Extra configuration merged over inference.json, such as 'phantom'."),
    edition: str | None = typer.Option(None, help="Names and label values of the studies (default: detected)."),
    device: str | None = typer.Option(None, help="cpu, cuda, cuda:1 (default: cuda where there is one)."),
    resample: bool = typer.Option(False, help="Bring modalities with different grids to the reference grid."),
    overwrite: bool = typer.Option(False, help="Segment again what is done already."),
    strict: bool = typer.Option(False, "--strict", help="A NIfTI file that is not used is an error."),
    case_id: str | None = typer.Option(None, help="With --MODALITY FILE: name of the study (default: from its files)."),
    reliability: Path | None = typer.Option(
        None, help="reliability.json of an evaluation (default: the one in the bundle's models/, if any)."
    ),
    prepare: bool = typer.Option(
        False, "--prepare", help="DICOM or native NIfTI: 'medmap prepare' first, then results on the original images."
    ),
    skull_strip: str = typer.Option("auto", help="With --prepare: auto, deepbet, synthstrip, hd-bet or none."),
    ignore_unclear: bool = typer.Option(False, help="With --prepare: go on without images that nobody recognises."),
    trust: bool = typer.Option(False, "--trust", help="Do not warn that a bundle is code."),
    override: list[str] = typer.Option([], "--set", help="Any configuration value, as key=value. Repeatable."),
) -> None:
    """Segment studies of which any non-empty subset of the modalities exists.

    Every study gives OUTPUT/CASE_seg.nii.gz on the grid of its own first modality, with the label values of its
    edition; OUTPUT/CASE_seg.json, which says where it comes from; and a row in OUTPUT/predictions.csv: modalities
    used and absent, voxels and ml per class, expected quality, model, seconds. What is there already is made again
    only when weights, configuration or input files have changed. A study that cannot be used is reported, the
    others are finished, and the exit code is 1. NIfTI files that are not used are listed first.

    With --prepare STUDIES is what a scanner or a PACS exported. Every study then gives OUTPUT/STUDY/report.html, label
    maps on the grid of every original image and, for DICOM, a DICOM SEG per series. Research use only.

    Files with any names: an option per modality of the bundle, such as --flair FILE --t1ce FILE.

    Example: medmap predict studies/ --bundle brats_unet_dropout --output segmentations/

    Example: medmap predict --flair a.nii.gz --t1ce b.nii.gz -b bundles/brats_unet_dropout -o segmentations/
    """
    from medmap_monai.cli.errors import fail
    from medmap_monai.cli.modality_files import bundle_modalities, given_files, write_study_manifest
    from medmap_monai.cli.progress import StudyProgress
    from medmap_monai.cli.reading import tell_unused
    from medmap_monai.engines.run_bundle import run_inference
    from medmap_monai.engines.studies_failed import StudiesFailedError
    from medmap_monai.utils.bundle_workflow import parse_overrides
    from medmap_monai.utils.find_bundle import default_bundle

    files = given_files(ctx)
    native = None
    failed: list[str] = []
    predictor: StudyPredictor | None = None
    try:
        if bundle is None:
            bundle = default_bundle()
            typer.echo(f"bundle {bundle.name} (none was given)")
        if prepare:
            from medmap_monai.cli.prepare import prepare_for_prediction

            native, failed = prepare_for_prediction(studies, output, files, skull_strip, ignore_unclear)
            studies, files = output / PREPARED_NAME, {}
        if files:
            if studies is not None:
                raise ValueError(
                    f"give either {studies} or the files of one study ({' '.join(f'--{n}' for n in files)})"
                )
            studies = write_study_manifest(files, bundle_modalities(bundle, overlay), output, case_id, edition)
        elif studies is None:
            fail("give a folder of studies, a manifest, or the files of one study such as --flair FILE", 2)
        else:
            tell_unused(studies, edition, strict)

        def attach(engine: StudyPredictor) -> None:
            nonlocal predictor
            predictor = engine
            StudyProgress().attach(engine)
            if native is not None:
                native.attach(engine)

        run_inference(
            studies,
            bundle,
            output,
            overlays=overlay,
            edition=edition,
            device=device,
            resample=resample,
            overwrite=overwrite,
            reliability=reliability,
            trust=trust,
            settings=parse_overrides(override),
            attach=attach,
        )
    except StudiesFailedError as error:
        if predictor is not None:
            _print_findings(predictor)  # of the studies that are done
        fail(error)
    except (OSError, ValueError) as error:
        fail(error)
    assert predictor is not None
    skipped = len(predictor.skipped)
    note = f", {counted(skipped, 'was', 'were')} done already (--overwrite redoes them)" if skipped else ""
    typer.echo(f"{counted(len(predictor.finished), 'study')} segmented{note}; results in {output}")
    for reason, count in Counter(predictor.again.values()).items():
        typer.echo(f"  {count} of them again: {reason}")
    _print_findings(predictor)
    if native is not None:
        from medmap_monai.cli.prepare import tell_native_results

        tell_native_results(native, failed)


def _print_findings(predictor: StudyPredictor) -> None:
    """What an evaluation says about subsets like those of the studies just segmented, and what was noticed."""
    from medmap_monai.modalities import SUBSET_SEPARATOR
    from medmap_monai.utils.output import read_record

    facts = predictor.facts
    for case_id in predictor.finished:
        row = predictor.rows[case_id]
        quality = facts and facts.expected(row["modalities_used"].split(SUBSET_SEPARATOR))
        if quality:
            scores = ", ".join(f"{region} {score.mean:.2f}" for region, score in quality.values.items())
            typer.echo(f"{case_id}: expected Dice {scores or 'unknown'} ({quality.source})")
        record = read_record(predictor.output_dir, case_id) or {}
        for text in [*(quality.warnings if quality else ()), *record.get("notes", ()), *record.get("plausibility", ())]:
            typer.secho(f"  {case_id}: {text}", fg=typer.colors.YELLOW)
