"""The first stage of knowledge distillation: a trained teacher, from its file where there is one."""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch

from medmap_monai.networks.base import ModalityNetwork
from medmap_monai.utils.files import atomic_path


@contextmanager
def _random_state_kept() -> Iterator[None]:
    """Restore the state of torch's, numpy's and Python's generators at the end."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002 (the state that third-party transforms use)
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        yield
    random.setstate(states[0])
    np.random.set_state(states[1])  # noqa: NPY002


class TeacherStage:
    """Make sure that the teacher is trained: load its weights when the file exists, else train and save them.

    Call it before the student's trainer runs; the file appears only when the teacher's training is complete. Under
    DDP every rank calls it and rank 0 writes.

    Args:
        network: the teacher that the student's method holds; its weights are set in place.
        train: what trains ``network``, for example ``run`` of a :class:`~medmap_monai.engines.trainer.ModalityTrainer`
            whose method wraps the same object.
        path: the teacher's weights (a state dict).
        reuse: False trains anew even when the file exists.

    Raises:
        ValueError: (on call) when the file does not fit the network.
    """

    def __init__(
        self, network: ModalityNetwork, train: Callable[[], Any], path: str | os.PathLike[str], reuse: bool = True
    ) -> None:
        self.network = network
        self.train = train
        self.path = Path(path)
        self.reuse = reuse

    def __call__(self) -> ModalityNetwork:
        """The trained, frozen teacher."""
        logger = logging.getLogger(__name__)
        found = self.reuse and self.path.is_file()
        idist.barrier()  # no rank may look for the file after another one has written it
        if found:
            logger.info("teacher taken from %s", self.path)
            self._load()
        else:
            logger.info("training the teacher; it is kept in %s", self.path)
            self.network.requires_grad_(True).train()
            with _random_state_kept():  # the student starts alike whether the teacher was trained or found
                self.train()
            if idist.get_rank() == 0:
                with atomic_path(self.path) as temporary:
                    torch.save(self.network.state_dict(), temporary)
            idist.barrier()
        self.network.requires_grad_(False).eval()
        return self.network

    def _load(self) -> None:
        try:
            self.network.load_state_dict(torch.load(self.path, map_location="cpu", weights_only=True))
        except (RuntimeError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{self.path} does not fit the teacher of this configuration; give another path, or train it anew "
                f"(reuse=False): {error}"
            ) from error
