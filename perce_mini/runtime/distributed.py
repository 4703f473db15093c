"""Several processes, one per GPU (or CPU): `torchrun --nproc_per_node N train.py ...`.

All processes draw the same sequence of micro-batches, and each process handles every N-th one. They
all divide by the number of response tokens in the whole step, so the gradient of Eq. 8 is the SUM
of the gradients over all processes. Only the first process prints and writes files.

Without torchrun, there is a single process, and no communication takes place.
"""

import os
import sys

import torch
import torch.distributed as dist


def init_distributed(device):
    """Join the process group if torchrun started this process. Returns this process's device."""
    if "LOCAL_RANK" in os.environ:
        if device.type == "cuda":
            device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            torch.cuda.set_device(device)
        # Creating an optimizer imports this module. If it is imported after the process group
        # is created, it keeps the group alive, and the group's threads can crash Python at exit.
        from torch.distributed import nn as _  # noqa: F401

        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        if rank():
            sys.stdout = open(os.devnull, "w")
    return device


def rank():
    """The index of this process, starting at 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size():
    """The number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def barrier():
    """Wait for all processes."""
    if dist.is_initialized():
        dist.barrier()


def my_share(micro_batches):
    """This process's share of the micro-batches. It may be empty at the end of an epoch."""
    return micro_batches[rank() :: world_size()]


def sum_gradients(model):
    """Replace every gradient with its sum over all processes."""
    if dist.is_initialized():
        for p in model.parameters():
            if p.requires_grad:
                if p.grad is None:  # if this process had no micro-batch
                    p.grad = torch.zeros_like(p)
                dist.all_reduce(p.grad)


def sum_over_processes(values):
    """Replace a tensor with its sum over all processes, and return it."""
    if dist.is_initialized():
        dist.all_reduce(values)
    return values


def shutdown():
    """Leave the process group."""
    if dist.is_initialized():
        dist.destroy_process_group()
