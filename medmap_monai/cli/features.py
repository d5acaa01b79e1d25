"""``medmap features``: save encoder features for the t-SNE picture, and show the modality gap."""

from __future__ import annotations

from pathlib import Path

import typer

from medmap_monai.utils.counted import counted


def features(
    studies: Path = typer.Argument(..., help="Folder of studies, or a CSV/JSON manifest; complete ones are used."),
    bundle: Path = typer.Option(..., "--bundle", "-b", help="Name or folder of the bundle, with its weights."),
    output: Path = typer.Option(..., "--output", "-o", help="The .npz file to write."),
    overlay: list[str] = typer.Option([], help="Extra configuration merged over inference.json, such as 'phantom'."),
    edition: str | None = typer.Option(None, help="Names and label values of the studies (default: detected)."),
    cases: int = typer.Option(20, min=1, help="Studies at most."),
    positions: int = typer.Option(100, min=1, help="Positions per study and level."),
    seed: int = typer.Option(0, help="Seed of the choice of positions."),
    device: str | None = typer.Option(None, help="cpu, cuda, cuda:1 (default: cuda where there is one)."),
    override: list[str] = typer.Option([], "--set", help="Any configuration value, as key=value. Repeatable."),
) -> None:
    """Save encoder features of every modality at the same positions of complete studies.

    The table shows, per level, how far apart the modalities lie (linear CKA: 1 = alike; distances: 0 = alike) and
    whether the features collapsed (effective rank, spatial deviation).

    Example: medmap features studies/ --bundle bundles/brats_medmap_rfnet --output features.npz
    """
    from itertools import islice

    from rich.console import Console
    from rich.table import Table

    from medmap_monai.cli.errors import fail
    from medmap_monai.data.study_dataset import ERROR
    from medmap_monai.engines.encoder_features import collect_features, gap_per_level, save_features
    from medmap_monai.engines.training_checkpoint import load_model
    from medmap_monai.inferers.unwrap import find_network
    from medmap_monai.utils.bundle_workflow import only_given, open_workflow, parse_overrides
    from medmap_monai.utils.plain_errors import root_cause

    overrides = {
        "dataset_dir": str(studies),
        "output_dir": str(output.absolute().parent),
        "edition": edition,
        "device": device,
        "overwrite": True,
    }
    try:
        parser = open_workflow(
            bundle, "inference", overlay, {**only_given(overrides), **parse_overrides(override)}
        ).parser
        dataset = parser.get_parsed_content("dataset")
        problem = getattr(dataset.data, "problem", None)
        if problem is not None:
            raise problem
        network = find_network(parser.get_parsed_content("network"))
        if network is None:
            raise ValueError(f"the network of {bundle} does not encode modalities on their own")
        load_model(network, parser.get_parsed_content("checkpoint"))
        modalities = parser.get_parsed_content("modalities")
        samples = (sample for sample in (dataset[i] for i in range(len(dataset))) if ERROR not in sample)
        complete = (sample for sample in samples if bool(sample["present_mask"].all()))
        found = collect_features(
            network,
            islice(complete, cases),
            modalities,
            parser.get_parsed_content("roi_size"),
            positions,
            seed,
            parser.get_parsed_content("device"),
        )
        save_features(found, output)
    except (OSError, ValueError, RuntimeError) as error:
        cause = root_cause(error)
        if not isinstance(cause, (OSError, ValueError)):
            raise
        fail(cause)
    table = Table("level", "positions", "linear CKA", "centroid distance", "voxel distance", "effective rank", "sd")
    for row in gap_per_level(found):
        numbers = (*row.gap, row.effective_rank, row.spatial_sd)
        table.add_row(row.level, str(row.positions), *(f"{number:.3f}" for number in numbers))
    Console().print(table)
    studies_used = len(set(next(iter(found.case_ids.values())).tolist()))
    typer.echo(f"{counted(studies_used, 'study')}, modalities {', '.join(found.modalities)}; features in {output}")
