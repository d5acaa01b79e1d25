"""The end of a run of several processes."""

from __future__ import annotations

import logging
import os
import sys

import torch.distributed as dist


def leave_process_group() -> None:
    """Wait for the other ranks, destroy the process group and, under torchrun, end the process at once.

    DistributedDataParallel keeps the group's C++ object, and with it gloo's threads, alive until the interpreter is
    torn down, where it sometimes aborts ("terminate called without an active exception", seen with torch 2.13). All
    files are closed by then, so a process that torchrun started for this run alone skips the teardown.
    """
    if not dist.is_initialized():
        return
    dist.barrier()
    dist.destroy_process_group()
    if dist.is_torchelastic_launched():
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
