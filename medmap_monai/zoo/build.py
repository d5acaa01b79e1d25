"""Write a bundle's folder from its source; say where a folder differs from it."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

from medmap_monai.utils.files import write_text
from medmap_monai.zoo.bundle_folder import load_json
from medmap_monai.zoo.json_text import json_text
from medmap_monai.zoo.merge import merge_config
from medmap_monai.zoo.source import PARTS, BundleSource

_COMMON = PARTS / "common"
#: files that every bundle has, and the phantom overlay where the task has a phantom
_STAGES = ("train", "inference", "evaluate", "inference_ts", "multi_gpu_train")
_PHANTOM = "phantom"
_OWN_EDITION = "$@bundle_root + '/configs/edition.json'"
_MASK = (
    "The network takes a second, optional argument modality_mask (bool, batch x modalities); "
    "without it a channel that is zero everywhere counts as absent."
)
_NO_WEIGHTS = "The repository holds no weights; a packed release brings its own in `models/`."
_SMALL = (
    "A model that was trained with `configs/phantom.json` has a smaller network: give the overlay at inference and "
    "evaluation too (`--config_file \"['configs/inference.json','configs/phantom.json']\"`). "
)
#: what a training's README says of a value, where that training has it
_EVIDENCE = (
    "Optimiser, decay of the learning rate, 300 epochs and augmentation (`--augment published`): PASSION's published "
    "code. Preprocessing (`--protocol clinical`): ours; `legacy` is the published one, voxel for voxel."
)
_VALUES = {
    "split_file": "`--split_file FILE` folds and availability from a file",
    "mode": "`--mode pdt|idt|idt_drop` perfect data, imperfect data, or imperfect data with dropout",
    "protocol": "`--protocol clinical|legacy` preprocessing",
    "orientation": (
        '`--orientation RAS`, `--spacing "[2,2,2]"` a fixed grid for the network (results are on the study\'s own)'
    ),
    "select": "`--select last|best` which epoch `model.pt` holds",
    "initial_weights": "`--initial_weights FILE` weights of the same network to start from",
}
_TRAIN = "train on your data\npython -m monai.bundle run training --config_file configs/train.json --dataset_dir DIR"
_NUMBERS = "`--epochs`, `--batch_size`, `--learning_rate`, `--roi_size`, `--num_workers`, `--cache_rate`, `--device`."


def bundle_files(source: BundleSource) -> dict[str, str]:
    """The content of every generated file of a bundle, by its path in the folder.

    Raises:
        ValueError: a part does not fit, or the configuration lacks a network, a loss or a method.
    """
    facts = {"missing_rates": source.fact("missing_rates")}
    stages = [*_STAGES, *sorted(source.stages() - set(_STAGES) - {_PHANTOM})]
    if source.has_phantom:
        stages.append(_PHANTOM)
    files = {f"configs/{stage}.json": json_text(_config(source, stage, facts)) for stage in stages}
    if source.edition is not None:
        files["configs/edition.json"] = json_text(dict(source.edition))
    files["configs/metadata.json"] = json_text(_metadata(source))
    files["configs/logging.conf"] = (_COMMON / "logging.conf").read_text(encoding="utf-8")
    values = _config(source, "train", facts)
    files["docs/README.md"] = _readme(source, values, with_phantom=_PHANTOM in stages)
    files["LICENSE"] = (_COMMON / "LICENSE").read_text(encoding="utf-8")
    files["models/.gitkeep"] = ""
    return files


def build_bundle(source: str | os.PathLike[str], folder: str | os.PathLike[str] | None = None) -> list[Path]:
    """Write the folder of the bundle whose source is ``source`` (``NAME.json``).

    Files that are right already are left alone, and so is what is not generated: weights, runs, configurations of
    one's own.

    Args:
        source: the bundle's file.
        folder: where to write; None: ``NAME`` beside it.

    Returns:
        the files that were written.
    """
    written = []
    bundle = BundleSource(source)
    root = _folder(bundle, folder)
    for name, text in bundle_files(bundle).items():
        if _differs(root / name, text):
            write_text(root / name, text)
            written.append(root / name)
    return written


def differences(source: str | os.PathLike[str], folder: str | os.PathLike[str] | None = None) -> list[str]:
    """What is not as the source says: files that are absent or other, and configurations that it does not give."""
    bundle = BundleSource(source)
    root = _folder(bundle, folder)
    files = bundle_files(bundle)
    found = [
        f"{root / name} is not as {bundle.path} says" if (root / name).is_file() else f"{root / name} does not exist"
        for name, text in files.items()
        if _differs(root / name, text)
    ]
    configs = root / "configs"
    extra = sorted(p.name for p in configs.iterdir() if f"configs/{p.name}" not in files) if configs.is_dir() else []
    return found + [f"{configs / name} is not generated from {bundle.path}" for name in extra]


def _folder(bundle: BundleSource, folder: str | os.PathLike[str] | None) -> Path:
    return bundle.path.with_suffix("") if folder is None else Path(folder)


def _differs(path: Path, text: str) -> bool:
    return not path.is_file() or path.read_bytes() != text.encode("utf-8")


def _config(source: BundleSource, stage: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    path = _COMMON / f"{stage}.json"
    config: dict[str, Any] = load_json(path) if path.is_file() else {}
    given = {
        "modalities": source.modalities,
        "classes": source.classes,
        "num_classes": len(source.classes),
        "edition": source.fact("edition") if source.edition is None else _OWN_EDITION,
        "roi_size": source.fact("roi_size"),
        "network_def": _network(source),
    }
    for key, value in given.items():
        if key in config and config[key] is None:
            config[key] = value
    for part in source.configs(stage):
        merge_config(config, part, facts)
    if stage == _PHANTOM:
        path_of_network = source.fact("network_path", "network_def")
        config |= {f"{path_of_network}#{key}": value for key, value in source.fact("small", {}).items()}
    lacking = [key for key in ("roi_size", "network_def", "loss", "method") if config.get(key, 0) is None]
    if lacking:
        raise ValueError(f"{source.path}: {stage}.json would lack {', '.join(lacking)}")
    return config


def _network(source: BundleSource) -> dict[str, Any] | None:
    """``network_def``: what every network gets, and what the part of the network says."""
    own = source.fact("network")
    if own is None:
        return None
    given = {
        "_target_": own["_target_"],
        "spatial_dims": source.spatial_dims,
        "in_channels": "$len(@modalities)",
        "out_channels": "@num_classes",
    }
    return given | own


def _metadata(source: BundleSource) -> dict[str, Any]:
    metadata: dict[str, Any] = load_json(_COMMON / "metadata.json")
    modalities, classes = source.modalities, source.fact("class_names", source.classes)
    shape = [f"{source.fact('divisor', 1)}*n"] * source.spatial_dims
    metadata["name"] = source.fact("title")
    metadata["description"] = " ".join([*_descriptions(source), _MASK])
    metadata["task"] = f"Segmentation from any subset of {_listed(modalities)}"
    metadata["data_source"] = "data of your own"
    metadata["image_classes"] = f"{len(modalities)} modalities ({', '.join(modalities)}), any non-empty subset"
    for key in ("label_classes", "pred_classes"):
        metadata[key] = ", ".join(f"{index} {name}" for index, name in enumerate(classes))
    for side, key, names in (("inputs", "image", modalities), ("outputs", "pred", classes)):
        entry = metadata["network_data_format"][side][key]
        entry["num_channels"] = len(names)
        entry["spatial_shape"] = shape
        entry["channel_def"] = {str(index): name for index, name in enumerate(names)}
    for part in source.parts:
        merge_config(metadata, part.get("metadata", {}))
    return metadata


def _readme(source: BundleSource, training: Mapping[str, Any], with_phantom: bool) -> str:
    def last(key: str, default: str) -> str:
        return next(reversed(source.texts("readme", key)), default)

    modalities, classes = source.modalities, source.fact("class_names", source.classes)
    about = [part.get("readme", {}).get("about", part.get("description")) for part in source.parts]
    place = last("source", "")
    phantom_cohort = ", or on the synthetic phantom cohort" if with_phantom else ""
    data = f"{place} data that you obtained from its organisers" if place else "data of your own"
    train_on = last("train_on", f"Train on {data}")
    size = "height, width" if source.spatial_dims == 2 else "..."
    interface = (
        f"The network takes `image` (batch, {len(modalities)}, {size}) in the order "
        f"{last('order', ', '.join(modalities))}, each z-scored over its own non-zero voxels, and an optional boolean "
        f"`modality_mask` (batch, {len(modalities)}). Without the mask a channel that is zero everywhere counts as "
        f"absent. It returns logits of {_listed(classes)}. {last('output', '')}"
    )
    columns = f"A CSV or JSON manifest with the columns `case_id`, {_listed([f'`{name}`' for name in modalities])}."
    several = ["train", "multi_gpu_train", *([_PHANTOM] if with_phantom else [])]
    several_files = "[" + ",".join(f"'configs/{name}.json'" for name in several) + "]"
    phantom_command = (
        "\n# the same bundle, shrunk, on a synthetic cohort that it makes itself (CPU, a few minutes)\n"
        "python -m monai.bundle run --config_file \"['configs/train.json','configs/phantom.json']\"\n"
    )
    own = source.own.get("readme", {}).get("evidence")  # a bundle that was trained in its own way says all of it
    evidence = [own] if own else [*source.texts("readme", "evidence"), _EVIDENCE]
    limits = source.texts("readme", "limits") or ["Research only. Nothing is known about this model yet."]
    values = [text for key, text in _VALUES.items() if key in training]
    template = Template((_COMMON / "README.md").read_text(encoding="utf-8"))
    return template.substitute(
        task=_metadata(source)["task"],
        about=_wrapped("\n".join([text for text in about if text] + [last("weights", "")])),
        no_weights=_wrapped(f"{last('repository', _NO_WEIGHTS)} {train_on}{phantom_cohort}."),
        data=_wrapped(last("data", columns)),
        train=last("train", _TRAIN),
        phantom_command=phantom_command if with_phantom else "",
        several=several_files,
        remark=_wrapped(
            (_SMALL if with_phantom else "")
            + "An interrupted training continues where it stopped; `--resume False` starts anew."
        ),
        values=_wrapped(" · ".join([*values, *source.texts("readme", "values"), _NUMBERS])),
        evidence="\n".join(_wrapped(text, "- ") for text in evidence),
        interface=_wrapped(interface),
        limits="\n\n".join(map(_wrapped, reversed(limits))),
    )


def _descriptions(source: BundleSource) -> list[str]:
    return [part["description"] for part in source.parts if "description" in part]


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _wrapped(text: str, bullet: str = "") -> str:
    """Paragraphs of at most 120 columns, each behind ``bullet``; a line break in ``text`` stays one."""
    fill = textwrap.TextWrapper(120, bullet, " " * len(bullet), break_long_words=False, break_on_hyphens=False).fill
    return "\n".join(fill(line) for line in text.split("\n") if line)
