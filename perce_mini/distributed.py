"""Several processes, one per GPU (or CPU): `torchrun --nproc_per_node N train.py ...`, on several machines too.

An optimisation step has N times as many micro-batches, and each process takes every N-th of them. All processes draw
the same batches, so each knows how many response tokens the whole step has, and divides its part of Eq. 8 by that. What
Eq. 8 wants is then the SUM of the gradients. DistributedDataParallel takes their mean, so a loss is multiplied by N.
The first process alone writes and prints.
"""

import os
import sys

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def init_distributed(device):
    """Meet the other processes where torchrun started this one. Returns the device of this process."""
    if "LOCAL_RANK" in os.environ:
        if device.type == "cuda":
            device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            torch.cuda.set_device(device)
        # An optimizer imports this. Imported after the group is made, it would keep the group alive: a crash at exit.
        from torch.distributed import nn as _  # noqa: F401

        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        if rank():
            sys.stdout = open(os.devnull, "w")
    return device


def rank():
    """The number of this process; 0 does the writing."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size():
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def barrier():
    """Go on only when all have come here."""
    if dist.is_initialized():
        dist.barrier()


class Hidden(nn.Module):
    """What DistributedDataParallel calls and waits for: ids (B, T) -> hidden (B, T, C)."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, ids):
        return self.model.hidden(ids)


def replicate(model):
    """ids -> hidden of the model, whose gradients are averaged over the processes where there are several."""
    return DistributedDataParallel(Hidden(model)) if dist.is_initialized() else model.hidden


def shutdown():
    if dist.is_initialized():
        dist.destroy_process_group()
