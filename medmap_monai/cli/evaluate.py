"""``medmap evaluate``: score a bundle on every subset of the modalities."""

from __future__ import annotations

from pathlib import Path

import typer

from medmap_monai.utils.counted import counted


def evaluate(
    dataset: Path = typer.Argument(..., help="Folder of studies with labels, or a CSV/JSON manifest."),
    bundle: Path = typer.Option(..., "--bundle", "-b", help="Name or folder of the bundle, with its weights."),
    output: Path = typer.Option(..., "--output", "-o", help="Folder for metrics.csv, summary.json and the rest."),
    overlay: list[str] = typer.Option([], help="Extra configuration merged over evaluate.json, such as 'phantom'."),
    edition: str | None = typer.Option(None, help="Names and label values of the studies (default: detected)."),
    split: Path | None = typer.Option(None, help="Split file: only its cases are evaluated."),
    fold: str | None = typer.Option(None, help="train, val, test or all (default: what the weights have not seen)."),
    protocol: str | None = typer.Option(None, help="clinical (default) or legacy, the published preprocessing."),
    subsets: str | None = typer.Option(
        None, help="Only these subsets, comma-separated, such as 'flair+t2,t1ce' (default: all)."
    ),
    hd95_empty: str | None = typer.Option(
        None, help="HD95 when one mask is empty: diagonal (default), 1.0 (published scripts) or nan (left out)."
    ),
    num_shards: int | None = typer.Option(None, min=1, help="Split the cases over so many processes."),
    shard: int | None = typer.Option(None, min=0, help="Number of this process's share, from 0."),
    merge: bool = typer.Option(False, "--merge", help="Evaluate nothing; merge what the shards left in OUTPUT."),
    keep_maps: int | None = typer.Option(None, min=0, help="Cases whose label maps are kept for the report."),
    data_name: str | None = typer.Option(None, help="What the data are, for the headings of the report."),
    device: str | None = typer.Option(None, help="cpu, cuda, cuda:1 (default: cuda where there is one)."),
    resample: bool = typer.Option(False, help="Bring modalities with different grids to the reference grid."),
    strict: bool = typer.Option(False, "--strict", help="A NIfTI file that is not used is an error."),
    trust: bool = typer.Option(False, "--trust", help="Do not warn that a bundle is code."),
    override: list[str] = typer.Option(
        [], "--set", "--config-override", help="Any configuration value, as key=value. Repeatable."
    ),
) -> None:
    """Score every subset of the modalities of every study.

    Finished cases are kept: start the same command again after an interruption. A study that cannot be evaluated
    becomes a row of OUTPUT/failures.csv, the others are finished, and the exit code is 1.

    Cases that the weights were trained or validated on, which models/model_cases.json tells, are left out unless
    --split, --fold or --fold all asks for them; results then say so. Where nothing is known about the weights that
    is said too.

    Example: medmap evaluate studies/ --bundle bundles/brats_unet_dropout --output evaluation/
    """
    import logging

    from medmap_monai.cli.errors import fail
    from medmap_monai.cli.reading import tell_unused
    from medmap_monai.engines.results_store import METRICS_FILE, SUMMARY_FILE, StaleResultsError
    from medmap_monai.engines.run_bundle import run_evaluation
    from medmap_monai.engines.subset_evaluator import EvaluationIncompleteError
    from medmap_monai.utils.bundle_workflow import only_given, parse_overrides

    if (num_shards is None) != (shard is None) and not merge:
        fail("give --num-shards and --shard together", 2)
    settings = {
        "protocol": protocol,
        "edge_cases": {"hd95_empty": hd95_empty} if hd95_empty else None,
        "num_shards": num_shards,
        "shard": 0 if merge and shard is None else shard,
        "merge_only": merge or None,
        "keep_maps": keep_maps,
        "data_name": data_name,
    }
    if not merge:
        tell_unused(dataset, edition, strict)
    logging.basicConfig(format="%(message)s")
    logging.getLogger("medmap_monai").setLevel(logging.INFO)
    try:
        summary = run_evaluation(
            dataset,
            bundle,
            output,
            overlays=overlay,
            subsets=[name.strip() for name in subsets.split(",")] if subsets else None,
            edition=edition,
            split=split,
            fold=fold,
            device=device,
            resample=resample,
            trust=trust,
            settings={**only_given(settings), **parse_overrides(override)},
        )
    except (EvaluationIncompleteError, StaleResultsError, OSError, ValueError) as error:
        fail(error)
    if summary is None:
        typer.echo("this share is done; the last process merges, or run again with --merge")
        return
    for average in summary["averages"]:
        if average["metric"] == "dice" and average["mean"] is not None:
            typer.echo(
                f"{average['region']:>8}: mean Dice over {counted(average['subsets'], 'subset')} "
                f"{100 * average['mean']:.2f} % (n = {summary['n_cases']})"
            )
    typer.echo(f"results in {output / METRICS_FILE} and {output / SUMMARY_FILE}; next: medmap report {output}")
