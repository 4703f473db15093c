"""Two processes train as one does with the same global batch."""

import json
import os
import subprocess
import sys

import pytest
import torch

from perce_mini import checkpoint
from tests.conftest import ROOT

LAUNCH = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}  # as torchrun has it: Adam makes much of rounding near 0


def train(cwd, *args, processes=1):
    command = [sys.executable, *(LAUNCH if processes > 1 else []), str(ROOT / "train.py"), *map(str, args)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=ONE_THREAD)


def log(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_two_processes_make_the_weights_of_one(world, trained, tmp_path):
    """8 steps of 2 x 2 x 3 examples. Of 39, an epoch's last step has one micro-batch: none is left for the second."""
    (base,) = (trained / "out").glob("base*")
    same = ["--data", world, "--init", base, "--loss", "perce", "--steps", 8, "--batch-size", 3, "--eval-examples", 2]
    same += ["--examples", 39, "--device", "cpu", "--lr", 1e-2]
    one = train(tmp_path, *same, "--grad-accum", 4, "--out", "one")
    two = train(tmp_path, *same, "--grad-accum", 2, "--out", "two", processes=2)
    assert one.returncode == two.returncode == 0, two.stderr
    a, b, start = (checkpoint.read(path)["model"] for path in [tmp_path / "one", tmp_path / "two", base])
    first, second, origin = (torch.cat([weights[name].flatten() for name in start]) for weights in (a, b, start))
    moved, apart = (first - origin).norm(), (first - second).norm()
    assert apart < 1e-3 * moved, (apart, moved)  # Adam divides gradients near 0 by their own size
    for step, other in zip(log(tmp_path / "one"), log(tmp_path / "two"), strict=True):  # Adam sees no wrong scale
        for figure in ["loss", "grad_norm", "weight", "floor", "cap"]:
            assert step[figure] == pytest.approx(other[figure], rel=1e-3), (figure, step, other)
    assert two.stdout.count("two holds") == 1 and "ROUGE-L" in two.stdout  # one process prints,
    assert two.stderr.count("score after:   0%") == 1  # and scores


def test_after_the_shutdown_nobody_holds_the_group():
    """Its threads would otherwise live on, and now and then abort a process that ends."""
    code = """if True:
        import gc, sys, torch
        from perce_mini import distributed
        distributed.init_distributed(torch.device("cpu"))
        class Model(torch.nn.Linear):
            hidden = torch.nn.Linear.forward
        model = Model(3, 3)
        run = distributed.replicate(model)
        optimizer = torch.optim.AdamW(model.parameters())
        run(torch.ones(2, 3)).sum().backward()
        distributed.all_reduce_sum(model.weight.grad)
        group = torch.distributed.group.WORLD
        run = None
        gc.collect()
        distributed.shutdown()
        assert sys.getrefcount(group) == 2, sys.getrefcount(group)  # this name and the question itself
    """
    alone = ONE_THREAD | {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "0"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, env=alone)
    assert done.returncode == 0, done.stderr


def test_a_process_that_fails_ends_the_others_with_its_error(world, trained, tmp_path):
    (base,) = (trained / "out").glob("base*")
    args = ["--data", world, "--init", base, "--lr", 1e30, "--steps", 5, "--out", "x", "--device", "cpu"]
    done = train(tmp_path, *args, processes=2)
    assert done.returncode != 0 and "lower --lr" in done.stderr
