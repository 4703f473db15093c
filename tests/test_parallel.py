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


def train(cwd, *args, processes=1):
    command = [sys.executable, *(LAUNCH if processes > 1 else []), str(ROOT / "train.py"), *map(str, args)]
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}  # as torchrun has it: Adam makes much of the rounding of gradients near 0
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=one_thread)


def log(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_two_processes_make_the_weights_of_one(world, trained, tmp_path):
    """20 steps of 2 x 3 examples; the last step of an epoch has an odd number of micro-batches, one for the second process is missing."""
    (base,) = [path for path in (trained / "out").iterdir() if path.name.startswith("base")]
    same = ["--data", world, "--init", base, "--loss", "perce", "--steps", 20, "--batch-size", 3, "--examples", 33, "--eval-examples", 2,
            "--device", "cpu", "--lr", 1e-2]  # fmt: skip
    one = train(tmp_path, *same, "--grad-accum", 2, "--out", "one")
    two = train(tmp_path, *same, "--grad-accum", 1, "--out", "two", processes=2)
    assert one.returncode == two.returncode == 0, two.stderr
    a, b, start = (checkpoint.read(path)["model"] for path in [tmp_path / "one", tmp_path / "two", base])
    flat = lambda weights: torch.cat([weights[name].flatten() for name in start])
    moved, apart = (flat(a) - flat(start)).norm(), (flat(a) - flat(b)).norm()
    assert apart < 1e-3 * moved, (apart, moved)  # 0 as a rule; Adam divides gradients near 0 by their own size, and so makes much of rounding
    for step, other in zip(log(tmp_path / "one"), log(tmp_path / "two"), strict=True):  # Adam does not see a wrong scale, these do
        for figure in ["loss", "grad_norm", "weight", "floor", "cap"]:
            assert step[figure] == pytest.approx(other[figure], rel=1e-3), (figure, step, other)
    assert two.stdout.count("wrote") == 1 and "ROUGE-L" in two.stdout  # one process prints,
    assert two.stderr.count("score:   0%") == 1  # and scores


def test_after_leaving_nobody_holds_the_group():
    """Its threads would otherwise live on, and now and then abort a process that ends."""
    code = """if True:
        import sys, torch
        from perce_mini import parallel
        parallel.join(torch.device("cpu"))
        weight = torch.nn.Parameter(torch.ones(3))
        torch.optim.AdamW([weight])
        weight.sum().backward()
        parallel.add_up([weight.grad])
        group = torch.distributed.group.WORLD
        parallel.leave()
        assert sys.getrefcount(group) == 2, sys.getrefcount(group)  # this name and the question itself
    """
    alone = os.environ | {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "0"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, env=alone)
    assert done.returncode == 0, done.stderr


def test_a_process_that_fails_ends_the_others_with_its_error(world, trained, tmp_path):
    (base,) = [path for path in (trained / "out").iterdir() if path.name.startswith("base")]
    done = train(tmp_path, "--data", world, "--init", base, "--lr", 1e30, "--steps", 5, "--out", "x", "--device", "cpu", "--clip-max", 1e30, processes=2)
    assert done.returncode != 0 and "lower --lr" in done.stderr
