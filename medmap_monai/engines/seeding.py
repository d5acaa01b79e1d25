"""Randomness as a pure function of (seed, epoch, rank): what makes a resumed run equal an uninterrupted one."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


def mix_seed(*parts: int) -> int:
    """A 32-bit seed from whole numbers, equal on every platform (numpy's SeedSequence)."""
    return int(np.random.SeedSequence([p & 0xFFFFFFFF for p in parts]).generate_state(1)[0])


def seed_epoch(seed: int, epoch: int, rank: int, dataset: Any = None) -> None:
    """Seed torch, numpy and random for one epoch, and tell a data set with ``set_epoch`` which epoch it is.

    Torch's generator feeds dropout layers and the workers' base seed; a
    :class:`~medmap_monai.data.seeded_dataset.SeededCacheDataset` seeds its transforms per item and epoch itself.
    """
    value = mix_seed(seed, epoch, rank)
    torch.manual_seed(value)
    np.random.seed(value)  # noqa: NPY002 (third-party transforms may use the global generator)
    random.seed(value)
    if hasattr(dataset, "set_epoch"):
        dataset.set_epoch(epoch)
