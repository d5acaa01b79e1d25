"""Preprocessed cases on disk, each written once, of which a random crop can be read without the rest."""

from __future__ import annotations

import hashlib
import json
import os
import re
import warnings
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.utils import look_up_option

from medmap_monai.data.study import Study
from medmap_monai.utils.files import atomic_path, file_sha256, write_text
from medmap_monai.utils.json_file import read_own_record

_FORMAT = 1
_PACKAGES = ("medmap-monai", "monai", "nibabel", "numpy", "scipy", "torch")
#: attribute in which a pipeline says what its deterministic part was built from
SETTINGS = "deterministic_settings"


class CaseStore:
    """What a training pipeline computes before its first random transform, kept as memory-mapped arrays.

    An entry is found by the case, the pipeline's settings, the code and library versions that computed it, what the
    split grants, and the SHA-256 of every file of the study; a file whose size and time of change are those of the
    entry is not hashed again. So an entry is never used for other data or other preprocessing; it is written anew
    instead, and the old one may be deleted at any time, as may the whole folder.

    Several processes may use one folder: files appear under their final names when they are complete, and two that
    write the same case write the same bytes. When the disk is full, cases are computed every time and a warning says
    so.

    Numbers are those of the files, bit for bit, with ``dtype="float32"``; ``"float16"`` halves disk and reading, and
    rounds normalised intensities to three digits (relative error at most 5e-4).

    Args:
        folder: where to keep entries; None, False or "" switches the store off.
        pipeline: the transforms; must carry ``deterministic_settings`` as those of
            :func:`~medmap_monai.transforms.pipelines.train_transforms` do.
        dtype: type of images on disk, ``float32`` or ``float16``.

    Raises:
        ValueError: for a pipeline without settings, an unknown type, or ``float16`` without random crops.
    """

    def __init__(self, folder: str | os.PathLike[str] | bool | None, pipeline: Any, dtype: str = "float32") -> None:
        self.folder = Path(str(folder)) if folder else None
        self.dtype = np.dtype(look_up_option(dtype, ("float32", "float16")))
        settings = getattr(pipeline, SETTINGS, None)
        if settings is None and self.folder is not None:
            raise ValueError(
                f"a store needs a pipeline that says its settings ({SETTINGS}), such as train_transforms(...); "
                f"got {type(pipeline).__name__}"
            )
        if self.folder is not None and dtype == "float16" and dict(settings or {}).get("roi_size") is None:
            raise ValueError("a store of float16 needs a roi_size: crops are brought back to float32, volumes are not")
        self.settings = settings
        self._full = False

    def __bool__(self) -> bool:
        return self.folder is not None

    def get(self, record: Mapping[str, Any], compute: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """The case's deterministic sample, from disk where it is there, else computed and written.

        Args:
            record: ``{"case_id", "study", "available"?}``.
            compute: what computes the sample: plain tensors, strings and numbers by name.

        Raises:
            TypeError: the sample holds something else.
        """
        if self.folder is None:
            return dict(compute())
        name, sources = self._name(record), _sources(record["study"])
        index = self.folder / f"{name}.json"
        entry = _read_index(index)
        if entry is not None and _same_files(entry["sources"], sources):
            stored = self._load(entry)
            if stored is not None:
                if entry["sources"] != sources:  # touched or moved, content equal
                    self._write_index(index, {**entry, "sources": sources})
                return stored
        sample = dict(compute())
        if self.dtype == np.float16 and "image" in sample:
            sample["image"] = sample["image"].to(torch.float16)  # the first time as every time
        self._write(index, name, sources, sample)
        return sample

    def has(self, record: Mapping[str, Any]) -> bool:
        """Whether the case is there, complete and up to date."""
        if self.folder is None:
            return False
        entry = _read_index(self.folder / f"{self._name(record)}.json")
        same = entry is not None and _same_files(entry["sources"], _sources(record["study"]))
        return same and entry is not None and self._load(entry) is not None

    def _name(self, record: Mapping[str, Any]) -> str:
        """File name of a case's entry: readable, and different wherever settings or code differ."""
        study: Study = record["study"]
        available = record.get("available")
        described = {
            "format": _FORMAT,
            "case": study.case_id,
            "edition": repr(study.edition),
            "available": None if available is None else sorted(available),
            "settings": self.settings,
            "dtype": self.dtype.name,
            "code": code_fingerprint(),
        }
        digest = hashlib.sha256(json.dumps(described, sort_keys=True, default=repr).encode()).hexdigest()
        return f"{re.sub(r'[^A-Za-z0-9._-]', '_', study.case_id)[:80]}-{digest[:20]}"

    def _write(self, index: Path, name: str, sources: dict[str, Any], sample: Mapping[str, Any]) -> None:
        arrays, values = _split(sample)
        hashed = {key: {**source, "sha256": _hash(source)} for key, source in sources.items()}
        content = hashlib.sha256(json.dumps([s["sha256"] for s in hashed.values()]).encode()).hexdigest()[:12]
        entry = {"sources": hashed, "values": values, "arrays": {}}
        try:
            for key, array in arrays.items():
                file = f"{name}-{content}.{key}.npy"
                with atomic_path(index.parent / file) as temporary, temporary.open("wb") as opened:
                    np.save(opened, array, allow_pickle=False)
                entry["arrays"][key] = file
            self._write_index(index, entry)
        except OSError as error:
            if not self._full:
                warnings.warn(f"cases are not kept in {self.folder} and computed every time: {error}", stacklevel=3)
            self._full = True

    def _write_index(self, index: Path, entry: Mapping[str, Any]) -> None:
        write_text(index, json.dumps(entry, indent=1) + "\n")

    def _load(self, entry: Mapping[str, Any]) -> dict[str, Any] | None:
        """The sample, its arrays mapped and not read; None where a file is damaged or gone."""
        assert self.folder is not None
        sample: dict[str, Any] = {}
        try:
            for key, value in entry["values"].items():
                sample[key] = torch.tensor(value["mask"], dtype=torch.bool) if isinstance(value, dict) else value
            for key, file in entry["arrays"].items():
                # copy on write: nobody can change the file, and torch gets writable memory as it asks for
                sample[key] = torch.from_numpy(np.load(self.folder / file, mmap_mode="c", allow_pickle=False))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return sample


@lru_cache(maxsize=1)
def code_fingerprint() -> str:
    """What computed an entry: this package's transforms and data code, and the libraries below them."""
    digest = hashlib.sha256()
    package = Path(__file__).resolve().parents[1]
    for folder in ("transforms", "data"):
        for path in sorted((package / folder).glob("*.py")):
            digest.update(path.name.encode() + path.read_bytes())
    for name in _PACKAGES:
        try:
            digest.update(f"{name} {version(name)}".encode())
        except PackageNotFoundError:
            digest.update(f"{name} absent".encode())
    return digest.hexdigest()


def _sources(study: Study) -> dict[str, Any]:
    """Path, size and time of change of every file of a study, by what it is."""
    files = {name: (Path(source.path), source.channel) for name, source in sorted(study.images.items())}
    if study.label is not None:
        files["label"] = (Path(study.label), None)
    found: dict[str, Any] = {}
    for name, (path, channel) in files.items():
        try:
            stat = path.stat()
        except OSError:
            return {"unreadable": {"path": str(path)}}  # matches no entry: whoever computes it reports the file
        found[name] = {"path": str(path), "channel": channel, "size": stat.st_size, "changed": stat.st_mtime_ns}
    return found


def _same_files(stored: Mapping[str, Any], sources: dict[str, Any]) -> bool:
    """Whether ``sources`` have the content of ``stored``; adds the hashes that it knows or computes to ``sources``."""
    if list(stored) != list(sources) or "unreadable" in sources:
        return False
    for name, source in sources.items():
        known = stored[name]
        if known["channel"] != source["channel"]:
            return False
        unchanged = all(known[key] == source[key] for key in ("path", "size", "changed"))
        source["sha256"] = known["sha256"] if unchanged else _hash(source)
        if source["sha256"] != known["sha256"]:
            return False
    return True


@lru_cache(maxsize=4096)
def _hash_of(path: str, size: int, changed: int) -> str:
    return file_sha256(path)


def _hash(source: Mapping[str, Any]) -> str:
    """SHA-256 of a file; modalities may share one, which is then read once."""
    return _hash_of(source["path"], source["size"], source["changed"]) if "size" in source else ""


def _read_index(path: Path) -> dict[str, Any] | None:
    entry = read_own_record(path)
    return entry if entry is not None and {"sources", "values", "arrays"} <= set(entry) else None


def _split(sample: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays, and what fits into a JSON file: masks, strings, numbers."""
    arrays: dict[str, np.ndarray] = {}
    values: dict[str, Any] = {}
    for key, value in sample.items():
        if isinstance(value, torch.Tensor) and value.dtype == torch.bool and value.ndim == 1:
            values[key] = {"mask": value.tolist()}
        elif isinstance(value, torch.Tensor) and not isinstance(value, MetaTensor):
            arrays[key] = np.ascontiguousarray(value.numpy())
        elif value is None or isinstance(value, (str, int, float)):
            values[key] = value
        else:
            raise TypeError(f"a stored sample holds plain tensors, text and numbers; {key} is {type(value).__name__}")
    return arrays, values
