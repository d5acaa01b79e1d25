"""What numbers belong to: hashes of weights and versions of software."""

from __future__ import annotations

import hashlib
from importlib.metadata import PackageNotFoundError, version

import torch
from torch import nn

_PACKAGES = ("torch", "monai", "numpy", "scipy")


def weights_sha256(network: nn.Module) -> str:
    """SHA-256 over names, types, shapes and bytes of a network's ``state_dict``, in hexadecimal.

    Unlike a file's hash it tells what was really used, and does not change when a checkpoint is saved again.
    """
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        if not isinstance(value, torch.Tensor):
            continue
        tensor = value.detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{list(tensor.shape)}|".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def software_versions() -> dict[str, str]:
    """Versions of this package and of the libraries that numbers depend on."""
    from medmap_monai import __version__

    found = {"medmap_monai": __version__}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # a local build without metadata
            found[name] = "unknown"
    return found
