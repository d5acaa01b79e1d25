"""A bundle as a folder: its metadata, its configuration files, the sets of them that run together, its network."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from torch import Tensor, nn

from medmap_monai.utils.find_bundle import find_bundle
from medmap_monai.utils.json_file import parse_json

#: configuration files that are run together, by the name of the set; ``base+overlay`` merges from left to right
CONFIG_SETS: dict[str, tuple[str, ...]] = {
    "train": ("train",),
    "inference": ("inference",),
    "evaluate": ("evaluate",),
    "train+evaluate": ("train", "evaluate"),
    "train+multi_gpu_train": ("train", "multi_gpu_train"),
    "train+phantom": ("train", "phantom"),
    "train+multi_gpu_train+phantom": ("train", "multi_gpu_train", "phantom"),
    "inference+phantom": ("inference", "phantom"),
    "evaluate+phantom": ("evaluate", "phantom"),
    "inference+inference_ts": ("inference", "inference_ts"),
    "inference+phantom+inference_ts": ("inference", "phantom", "inference_ts"),
}
_LARGE_FILES = ("large_files.json", "large_files.yaml", "large_files.yml")
#: what belongs to a released bundle, below its root; everything else (data, runs, predictions) stays at home
RELEASED = ("LICENSE", "README.md", "configs", "docs", "scripts", *_LARGE_FILES)


class BundleFolder:
    """One bundle on disk.

    Args:
        root: the bundle's folder, or the name of one that came with this package.

    Raises:
        FileNotFoundError: when it has no ``configs``.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = find_bundle(root).resolve()

    @property
    def name(self) -> str:
        """The bundle's name is that of its folder."""
        return self.root.name

    @property
    def metadata_file(self) -> Path:
        return self.root / "configs" / "metadata.json"

    @property
    def weights_file(self) -> Path:
        return self.root / "models" / "model.pt"

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """``configs/metadata.json``; one that cannot be read, or repeats a key, is a ValueError."""
        content = load_json(self.metadata_file)
        if not isinstance(content, dict):
            raise ValueError(f"{self.metadata_file} must hold an object, got a {type(content).__name__}")
        return content

    def config_file(self, stem: str) -> Path | None:
        """``configs/<stem>.json`` (or ``.yaml``, ``.yml``); None when there is none."""
        candidates = [self.root / "configs" / f"{stem}{suffix}" for suffix in (".json", ".yaml", ".yml")]
        return next((path for path in candidates if path.is_file()), None)

    def config_sets(self) -> dict[str, list[Path]]:
        """The sets of :data:`CONFIG_SETS` of which every file exists."""
        found: dict[str, list[Path]] = {}
        for name, stems in CONFIG_SETS.items():
            files = [path for path in map(self.config_file, stems) if path is not None]
            if len(files) == len(stems):
                found[name] = files
        return found

    def parser(self, files: Sequence[Path]) -> ConfigParser:
        """A parser of the merged ``files`` with the metadata, ``bundle_root`` set to this folder and the CPU."""
        parser = ConfigParser()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            parser.read_config([str(file) for file in files])
            parser.read_meta(str(self.metadata_file))
        parser["bundle_root"] = str(self.root)
        parser["device"] = "$torch.device('cpu')"
        return parser

    @cached_property
    def network(self) -> nn.Module:
        """:meth:`build_network` without overlays, built once and shared."""
        return self.build_network()

    def build_network(self, overlays: Sequence[str] = ()) -> nn.Module:
        """``network_def`` of ``inference.json``, merged with ``overlays`` of ``configs``, on the CPU in eval mode."""
        files = [self.required_config(stem) for stem in ("inference", *overlays)]
        network = self.parser(files).get_parsed_content("network_def")
        if not isinstance(network, nn.Module):
            raise ValueError(f"network_def of {files[0]} is a {type(network).__name__}, not a torch module")
        return network.cpu().eval()

    def required_config(self, stem: str) -> Path:
        """As :meth:`config_file`, but an absent file is a FileNotFoundError that lists those that exist."""
        path = self.config_file(stem)
        if path is None:
            known = sorted(p.stem for p in (self.root / "configs").iterdir() if p.suffix in (".json", ".yaml", ".yml"))
            raise FileNotFoundError(f"no configuration {stem!r} in {self.root / 'configs'}; there are {known}")
        return path

    def example_input(self) -> Tensor:
        """A random image (1, M, ...) of the smallest size that the metadata allow, always the same."""
        image = self.metadata["network_data_format"]["inputs"]["image"]
        shape = (1, int(image["num_channels"]), *smallest_shape(image["spatial_shape"]))
        return torch.rand(shape, generator=torch.Generator().manual_seed(0))

    def released_files(self) -> Iterator[Path]:
        """The files of the bundle that a release holds, weights apart, in a fixed order."""
        for name in RELEASED:
            top = self.root / name
            found = [top] if top.is_file() else sorted(p for p in top.rglob("*") if p.is_file()) if top.is_dir() else []
            for path in found:
                parts = path.relative_to(self.root).parts
                if not any(part.startswith(".") or part == "__pycache__" for part in parts):
                    yield path

    def large_files(self) -> dict[str, dict[str, Any]]:
        """Entries of ``large_files.(json|yaml|yml)`` by path; files that are downloaded separately."""
        for name in _LARGE_FILES:
            path = self.root / name
            if path.is_file():
                return {str(entry["path"]): dict(entry) for entry in ConfigParser.load_config_file(path)["large_files"]}
        return {}


def smallest_shape(spatial_shape: Sequence[int | str]) -> tuple[int, ...]:
    """The smallest size that metadata allow: ``32``, ``"32*n"`` and ``"2**p"`` with n = p = 1, ``"*"`` as 1.

    Raises:
        ValueError: for any other form.
    """
    sizes = []
    for entry in spatial_shape:
        text = str(entry).replace(" ", "")
        product = re.fullmatch(r"(\d+)(\*n|\*\*p|\*\*p\*n)?", text)
        if text == "*":
            sizes.append(1)
        elif product:
            sizes.append(int(product[1]))
        else:
            raise ValueError(f"spatial_shape entry {entry!r}: allowed are a number, 'K*n', 'K**p', 'K**p*n' and '*'")
    return tuple(sizes)


def load_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        ValueError: it is no JSON, or an object names a key twice (readers keep one of the two silently).
        FileNotFoundError: there is no such file.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        if twice:
            raise ValueError(f"{path} names {twice} twice in one object")
        return dict(pairs)

    return parse_json(path.read_bytes(), str(path), unique)
