"""The model card of a released bundle, as model hubs show it: front matter, use, results per subset, limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from medmap_monai.utils.counted import counted

_SYNTHETIC = (
    "**These numbers come from synthetic studies.** No patient was imaged. They show that the software "
    "works; they say nothing about clinical performance."
)


def model_card(
    name: str,
    metadata: Mapping[str, Any],
    readme: str,
    license_text: str,
    pictures: Mapping[str, str] | None = None,
) -> str:
    """``README.md`` of the package: front matter for hubs, then :func:`card_body`.

    Args:
        name: of the bundle.
        metadata: of the release, see :func:`~medmap_monai.zoo.release_metadata.release_metadata`.
        readme: the bundle's ``docs/README.md``.
        license_text: the bundle's ``LICENSE``.
        pictures: caption -> path of a picture in the package.
    """
    image = metadata["network_data_format"]["inputs"]["image"]
    shown = "".join(f"![{caption}]({path})\n\n" for caption, path in (pictures or {}).items())
    front: dict[str, Any] = {
        "license": license_identifier(license_text),
        "library_name": "monai",
        "pipeline_tag": "image-segmentation",
        "tags": ["monai", "medical", "segmentation", "missing-modalities", str(image.get("modality", "MR")).lower()],
    }
    if metadata["eval_metrics"]:
        front["model-index"] = [{"name": name, "results": [_hub_result(metadata["eval_metrics"])]}]
    return f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n\n{card_body(name, metadata, readme, shown)}"


def _hub_result(scores: Mapping[str, Any]) -> dict[str, Any]:
    """Mean Dice over all subsets, as hubs read results."""
    data = f"{scores['data'] or 'unnamed data'}{' (synthetic)' if scores['synthetic'] else ''}"
    return {
        "task": {"type": "image-segmentation"},
        "dataset": {"type": "private", "name": data},
        "metrics": [
            {
                "type": "dice",
                "name": f"{region}, mean over {counted(len(scores['dice']), 'subset')}",
                "value": round(value, 4),
            }
            for region, value in scores["mean_dice"].items()
        ],
    }


def card_body(name: str, metadata: Mapping[str, Any], readme: str, pictures: str = "") -> str:
    """The bundle's own description, then what belongs to this release: use, results with ``pictures``, package."""
    scores = metadata["eval_metrics"]
    sections = {
        "Intended use": str(metadata.get("intended_use", "Research only; not a medical device.")),
        "Results": pictures + results_table(scores) if scores else "This release has not been evaluated.",
        "This release": _release(name, metadata),
    }
    return "\n\n".join([readme.rstrip(), *(f"## {title}\n{text}" for title, text in sections.items())]) + "\n"


def _release(name: str, metadata: Mapping[str, Any]) -> str:
    weights, version, required = metadata["weights"], metadata["version"], metadata["required_packages_version"]
    packages = {
        "monai": metadata["monai_version"],
        "torch": metadata["pytorch_version"],
        "numpy": metadata["numpy_version"],
        **required,
    }
    trained = f", trained with the overlay `{weights['trained_with']}`" if "trained_with" in weights else ""
    commands = [f"medmap predict STUDIES --bundle {name} --output OUT"]
    if "medmap_monai" in required:
        commands.insert(0, f"pip install medmap-monai=={required['medmap_monai']}")
    return "\n".join(
        [
            f"`{name}` {version}: {metadata['changelog'][version]}",
            "",
            f"Made with {', '.join(f'{package} {number}' for package, number in packages.items())}.",
            "",
            f"Weights: `{weights['file']}`, sha256 `{weights['sha256']}`{trained}.",
            "",
            "```",
            *commands,
            "```",
            "",
            "Configurations of a bundle are code: run bundles only from people you trust.",
        ]
    )


def results_table(scores: Mapping[str, Any]) -> str:
    """Mean Dice (%) per subset and region as a Markdown table, with what it was measured on."""
    regions = list(scores["mean_dice"])
    lines = [
        f"Mean Dice (%) over {counted(scores['n_cases'], 'case')} of {scores['data'] or 'unnamed data'}, "
        f"protocol `{scores['protocol']}`, for every subset of the modalities.",
        "",
        "| available | cases | " + " | ".join(regions) + " |",
        "|---|---:|" + "---:|" * len(regions),
    ]
    for subset, values in scores["dice"].items():
        cells = [subset.replace("+", " + "), str(scores["cases"][subset]), *(_percent(values.get(r)) for r in regions)]
        lines.append(f"| {' | '.join(cells)} |")
    lines.append("| **mean over subsets** | | " + " | ".join(_percent(scores["mean_dice"][r]) for r in regions) + " |")
    return "\n".join([*([_SYNTHETIC, ""] if scores["synthetic"] else []), *lines])


def license_identifier(text: str) -> str:
    """The identifier that hubs use for a licence text; ``other`` when it is none of the usual ones."""
    if "Apache License" in text and "Version 2.0" in text:
        return "apache-2.0"
    if "MIT License" in text or "Permission is hereby granted, free of charge" in text:
        return "mit"
    if "Redistribution and use in source and binary forms" in text:
        return "bsd-3-clause" if "Neither the name" in text else "bsd-2-clause"
    return "other"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
