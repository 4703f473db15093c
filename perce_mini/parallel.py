"""Several processes, one a GPU (or CPU): `torchrun --nproc_per_node N train.py ...`, on several machines too.

An optimisation step has N times as many micro-batches, and each process takes every N-th of them. All processes draw
the same batches, so each knows how many response tokens the whole step has and divides its part of Eq. 8 by that;
gradients are then simply added up. (DistributedDataParallel would average them, which is another loss when the
parts differ in tokens, and would hide what is one line here.) The first process alone writes and prints.
"""

import os
import sys

import torch
import torch.distributed as dist


def join(device):
    """Meet the other processes where torchrun started this one. Returns the device of this process."""
    if "RANK" in os.environ:
        if device.type == "cuda":
            device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            torch.cuda.set_device(device)
        # An optimizer imports this; done after the group is made, that keeps it alive, and its threads crash at exit.
        from torch.distributed import nn  # noqa: F401

        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        if rank():
            sys.stdout = open(os.devnull, "w")
    return device


def rank():
    """The number of this process; 0 does the writing."""
    return dist.get_rank() if dist.is_initialized() else 0


def world():
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def wait():
    """Go on only when all have come here."""
    if dist.is_initialized():
        dist.barrier()


def add_up(tensors):
    """Replace every tensor by its sum over the processes."""
    if dist.is_initialized():
        for tensor in tensors:
            dist.all_reduce(tensor)


def add_up_gradients(model):
    if dist.is_initialized():
        trained = [p for p in model.parameters() if p.requires_grad]
        for p in trained:
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad  # no micro-batch came to this process
        add_up(p.grad for p in trained)


def leave():
    if dist.is_initialized():
        dist.destroy_process_group()
