"""Weights that are tensors and nothing else: reading them, and refusing files that would run code when opened."""

from __future__ import annotations

import os
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

#: endings of files that Python opens by unpickling
_PICKLE_SUFFIXES = frozenset({".pkl", ".pickle", ".joblib", ".dill"})
#: and of torch's, which can be read as tensors alone
_TORCH_SUFFIXES = frozenset({".pt", ".pth", ".ckpt", ".bin", ".tar"})


class UnsafeFileError(ValueError):
    """A file that can only be read by running code that it holds."""


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of ``model.pt`` by name.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no flat state dict: a training checkpoint, or nothing that torch reads.
        UnsafeFileError: reading it would need unpickling of code.
    """
    file = Path(path)
    content = _load_tensors(file)
    others = [str(key) for key, value in content.items() if not isinstance(value, Tensor)] if _is_dict(content) else []
    if not _is_dict(content) or others or not content:
        held = f"it holds {', '.join(others[:6])}" if others else f"it is a {type(content).__name__}"
        raise ValueError(f"{file} is not the weights of a network alone ({held}); give the model.pt of a training")
    return content


def refuse_code(path: str | os.PathLike[str]) -> None:
    """Raise when reading ``path`` would mean unpickling anything but tensors, numbers, strings and their containers.

    Judged by content as well as by name: torch's format and pickles are recognised whatever they are called. A
    TorchScript archive passes; its reader knows no Python objects.

    Raises:
        UnsafeFileError: says which file and why.
    """
    file = Path(path)
    with file.open("rb") as stream:
        head = stream.read(2)
    members = _zip_members(file)
    if any(re.search(r"(^|/)constants\.pkl$", name) for name in members):  # TorchScript
        return
    torch_format = any(re.search(r"(^|/)data\.pkl$", name) for name in members)
    pickled = head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")
    suffix = file.suffix.lower()
    if torch_format or suffix in _TORCH_SUFFIXES:
        _load_tensors(file)
    elif pickled or suffix in _PICKLE_SUFFIXES:
        raise UnsafeFileError(f"{file.name} is a pickle, which runs code when it is opened; weights must be tensors")


def _load_tensors(file: Path) -> Any:
    if not file.is_file():
        raise FileNotFoundError(f"no weights at {file}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds
        reason = " ".join(str(error).split())
        unsupported = re.search(r"(?:Unsupported (?:global|operand|class)|GLOBAL|Can only) .*?(?=\.\s|$)", reason)
        raise UnsafeFileError(
            f"{file.name} is not a file of plain tensors: torch.load(weights_only=True) refuses it "
            f"({(unsupported[0] if unsupported else reason)[:200]})"
        ) from error


def _zip_members(file: Path) -> list[str]:
    if not zipfile.is_zipfile(file):
        return []
    with zipfile.ZipFile(file) as archive:
        return archive.namelist()


def _is_dict(content: Any) -> bool:
    return isinstance(content, dict)
