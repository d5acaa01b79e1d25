"""Checks of a bundle's configurations: references, components, overlays, agreement, MONAI's workflow properties."""

from __future__ import annotations

import inspect
import re
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from pydoc import locate
from typing import Any

from monai.bundle import ConfigComponent, ConfigParser, ConfigWorkflow, ReferenceResolver
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.utils import BundlePropertyConfig

from medmap_monai.utils.counted import counted
from medmap_monai.zoo.bundle_folder import CONFIG_SETS, BundleFolder, load_json
from medmap_monai.zoo.outcome import fail, skip

#: what MONAI runs, and the name this project gives it
RUN_IDS = {"train": "training", "inference": "inference", "evaluate": "evaluate"}
_SPECIAL = {"imports", "initialize", "run", "finalize", *RUN_IDS.values()}
_BASES = ("train", "inference", "evaluate")


def references(bundle: BundleFolder) -> str:
    """Every set of configurations merges, every ``@reference`` in it leads somewhere, and it can be run."""
    problems, done = [], bundle.config_sets()
    for name, files in done.items():
        for file in files:
            if file.suffix == ".json":
                load_json(file)  # keys that occur twice
        parser = _merged(files)
        for id_, text in _texts(parser):
            problems += [f"{name}: {id_} -> @{ref}" for ref in _references(text) if ref not in parser]
        run_id = RUN_IDS[CONFIG_SETS[name][-1] if name == "train+evaluate" else CONFIG_SETS[name][0]]
        problems += [f"{name}: no {key!r} to run" for key in ("run", run_id) if key not in parser]
    if problems:
        fail(f"{len(problems)} unresolved: {'; '.join(problems[:5])}")
    return ", ".join(done)


def targets(bundle: BundleFolder) -> str:
    """Every ``_target_`` exists and takes the arguments that it is given."""
    problems, seen = set(), set()
    for name, files in bundle.config_sets().items():
        for id_, item in _merged(files).ref_resolver.items.items():
            if isinstance(item, ConfigComponent):
                path = item.resolve_module_name()
                problem = _target_problem(path, item)
                seen.add(path)
                if problem:
                    problems.add(f"{name}: {id_}: {problem}")
    if problems:
        fail("; ".join(sorted(problems)[:5]))
    return counted(len(seen), "component")


def overlay_keys(bundle: BundleFolder) -> str:
    """Every top-level key is used; MONAI accepts misspelt ones in silence."""
    properties = {_top(id_) for id_ in _property_ids()}
    sets = bundle.config_sets()
    problems, count = [], 0
    for stem in sorted({stem for stems in CONFIG_SETS.values() for stem in stems}):
        file = bundle.config_file(stem)
        containing = [name for name in sets if stem in CONFIG_SETS[name]]
        if file is None or not containing:
            continue
        used = set(_SPECIAL) | properties
        for name in containing:
            used |= {_top(ref) for _, text in _texts(_merged(sets[name])) for ref in _references(text)}
            for other in CONFIG_SETS[name][: CONFIG_SETS[name].index(stem)]:
                used |= {_top(key) for key in ConfigParser.load_config_file(bundle.required_config(other))}
        keys = {_top(key) for key in ConfigParser.load_config_file(file)}
        count += len(keys)
        problems += [f"{file.name}: {key!r}" for key in sorted(keys - used)]
    if problems:
        fail(f"used by nothing: {', '.join(problems)}")
    return f"{count} keys"


def channels(bundle: BundleFolder) -> str:
    """All configurations name the modalities and classes of the metadata, in the same order."""
    formats = bundle.metadata["network_data_format"]
    image, pred = formats["inputs"]["image"], formats["outputs"]["pred"]
    names = [image["channel_def"][key] for key in sorted(image.get("channel_def", {}), key=int)]
    if len(names) != image["num_channels"] or len(pred.get("channel_def", {})) != pred["num_channels"]:
        fail("metadata: channel_def must name every one of the num_channels of image and pred")
    compared = 0
    for stem in _BASES:
        file = bundle.config_file(stem)
        parser = None if file is None else bundle.parser([file])
        if parser is None:
            continue
        for key, wanted in (("modalities", names), ("num_classes", pred["num_channels"])):
            if key in parser:
                compared += 1
                found = parser.get_parsed_content(key)
                found = list(found) if isinstance(wanted, list) else found
                if found != wanted:
                    fail(f"{stem}: {key} is {found}, metadata say {wanted}")
    if not compared:
        skip("no configuration has 'modalities' or 'num_classes'")
    return f"{', '.join(names)} -> {pred['num_channels']} classes"


def network_definitions(bundle: BundleFolder) -> str:
    """``network_def`` means the same network in training, inference and evaluation."""
    found: dict[str, Any] = {}
    for stem in _BASES:
        file = bundle.config_file(stem)
        if file is not None:
            parser = bundle.parser([file])
            if "network_def" not in parser:
                fail(f"{stem} has no network_def")
            found[stem] = _resolved(parser, parser["network_def"])
    reference = next(iter(found))
    different = [stem for stem in found if found[stem] != found[reference]]
    if different:
        fail(f"network_def of {', '.join(different)} differs from that of {reference}")
    return ", ".join(found)


def train_workflow(bundle: BundleFolder) -> str:
    """MONAI's properties of a training workflow, instantiated without data; engines that federated learning accepts."""
    if bundle.config_file("train") is None:
        skip("no configs/train.json")
    with _workflow(bundle, "train", "train") as workflow:
        if not isinstance(workflow.trainer, SupervisedTrainer):
            fail(f"train#trainer must be a SupervisedTrainer, it is a {type(workflow.trainer).__name__}")
        evaluator = workflow.evaluator
        if evaluator is not None and not isinstance(evaluator, SupervisedEvaluator):
            fail(f"validate#evaluator must be a SupervisedEvaluator, it is a {type(evaluator).__name__}")
        return type(workflow.trainer).__name__


def infer_workflow(bundle: BundleFolder) -> str:
    """MONAI's properties of an inference workflow, instantiated without data."""
    with _workflow(bundle, "inference", "infer") as workflow:
        return type(workflow.evaluator).__name__


@contextmanager
def _workflow(bundle: BundleFolder, stem: str, workflow_type: str) -> Iterator[ConfigWorkflow]:
    """An initialised workflow with all properties; its ``bundle_root`` has ``configs`` alone, so it finds no data."""
    with tempfile.TemporaryDirectory() as empty:
        shutil.copytree(bundle.root / "configs", Path(empty, "configs"))  # which may hold the edition
        workflow = ConfigWorkflow(
            config_file=str(bundle.required_config(stem)),
            meta_file=str(bundle.metadata_file),
            logging_file=False,
            workflow_type=workflow_type,
            bundle_root=empty,
            device="$torch.device('cpu')",
        )
        workflow.initialize()
        wrong = workflow.check_properties()
        if wrong:
            fail(f"missing, or not referred to by their own id: {', '.join(wrong)}")
        yield workflow


def _merged(files: list[Path]) -> ConfigParser:
    parser = ConfigParser()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parser.read_config([str(file) for file in files])
    parser["_meta_"] = {}
    parser.parse(True)
    return parser


def _texts(parser: ConfigParser) -> Iterator[tuple[str, str]]:
    """Id and text of every string of a parsed configuration."""
    for id_, item in parser.ref_resolver.items.items():
        if isinstance(item.get_config(), str):
            yield id_, item.get_config()


def _references(text: str) -> list[str]:
    """The ids that a string refers to."""
    return sorted(ReferenceResolver.match_refs_pattern(text))


def _target_problem(path: Any, item: ConfigComponent) -> str | None:
    if not isinstance(path, str) or path.startswith(("$", "@", "%")):
        return None
    target = locate(path)
    if target is None:
        return f"there is no {path}"
    try:
        signature = inspect.signature(target)  # type: ignore[arg-type]
    except (TypeError, ValueError):  # built in C, without a signature
        return None
    partial = str(item.get_config().get("_mode_", "")) == "callable"
    try:
        (signature.bind_partial if partial else signature.bind)(**item.resolve_args())
    except TypeError as error:
        return f"{path}: {error}"
    return None


def _top(id_: str) -> str:
    """The top-level key of an id such as ``+train#handlers`` or ``a::b``."""
    return re.split("::|#", id_.lstrip("+"))[0]


def _property_ids() -> list[str]:
    from monai.bundle.properties import InferProperties, TrainProperties

    tables = (TrainProperties, InferProperties)
    return [str(entry[BundlePropertyConfig.ID]) for table in tables for entry in table.values()]


def _resolved(parser: ConfigParser, value: Any) -> Any:
    """``value`` with its references replaced: plain values by what they are, components by their configuration."""
    if isinstance(value, Mapping):
        return {key: _resolved(parser, item) for key, item in value.items()}
    if isinstance(value, list):
        return [_resolved(parser, item) for item in value]
    if isinstance(value, str) and value.startswith("@") and isinstance(parser[value[1:]], (Mapping, list)):
        return _resolved(parser, parser[value[1:]])
    if isinstance(value, str) and _references(value):
        ids = _references(value)
        resolved = {id_: parser.get_parsed_content(id_) for id_ in ids}
        return resolved[value[1:]] if value == f"@{ids[0]}" else (value, repr(resolved))
    return value
