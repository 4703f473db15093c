"""Two processes train as one does with the same global batch."""

import gc
import json
import os
import socket
import subprocess
import sys

import pytest
import torch

import train
from perce_mini import checkpoint, distributed
from tests.conftest import ROOT, call, start_process

SAME = ["--steps", 8, "--batch-size", 3, "--examples", 39, "--lr", 1e-2, "--eval-examples", 2, "--device", "cpu"]


def free_port():
    with socket.create_server(("localhost", 0)) as server:
        return str(server.getsockname()[1])


class Model(torch.nn.Linear):
    hidden = torch.nn.Linear.forward


def print_holders_after_the_shutdown():
    """How many still hold the group of a process that has trained, alone, and left it."""
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "0"}
    distributed.init_distributed(torch.device("cpu"))
    model = Model(3, 3)
    run = distributed.replicate(model)
    optimizer = torch.optim.AdamW(model.parameters())
    run(torch.ones(2, 3)).sum().backward()
    torch.distributed.all_reduce(model.weight.grad)
    optimizer.step()
    group = torch.distributed.group.WORLD
    del run
    gc.collect()
    distributed.shutdown()
    print(sys.getrefcount(group) - 2)  # but for this name and the question itself


def be_one_of_two(rank, commands):
    """What each of two new processes does: {run: (port to meet at, flags)} -> {run: the result of its command}."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}  # as torchrun does
    os.environ["MASTER_ADDR"] = "localhost"
    results = {}
    for name, (port, flags) in commands.items():
        os.environ["MASTER_PORT"] = port
        results[name] = vars(call(train.main, *flags))
    return results


@pytest.fixture(scope="module")
def done(world, trained, tmp_path_factory):
    """(folder, a result {run: ...} of each of two processes, an ended third process that looks for who holds the
    group): two train at a time, and meanwhile this one trains alone.

    8 steps of 2 x 2 x 3 examples. Of 39, an epoch's last step has one micro-batch: none is left for the second process.
    """
    folder, n_threads = tmp_path_factory.mktemp("distributed"), torch.get_num_threads()
    (base,) = (trained / "out").glob("base*")
    same = [*map(str, ["--data", world, "--init", base, *SAME])]
    flags = {"two": [*same, "--grad-accum", "2"], "broken": [*same, "--lr", "1e30"]}
    commands = {run: (free_port(), [*given, "--out", str(folder / run)]) for run, given in flags.items()}
    running = [start_process(be_one_of_two, rank, commands) for rank in "01"]
    code = "from tests import test_distributed as t; t.print_holders_after_the_shutdown()"
    third = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    torch.set_num_threads(1)  # Adam makes much of rounding near 0
    assert call(train.main, *same, "--grad-accum", 4, "--out", folder / "one").status == 0
    torch.set_num_threads(n_threads)
    return folder, [process.result() for process in running], (third.communicate()[0], third.returncode)


def log(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_two_processes_make_the_weights_of_one(trained, done):
    folder, (first, second), _ = done
    (base,) = (trained / "out").glob("base*")
    a, b, start = (checkpoint.read(path)["model"] for path in [folder / "one", folder / "two", base])
    one, two, origin = (torch.cat([weights[name].flatten() for name in start]) for weights in (a, b, start))
    moved, apart = (one - origin).norm(), (one - two).norm()
    assert apart < 1e-3 * moved, (apart, moved)  # Adam divides gradients near 0 by their own size
    for step, other in zip(log(folder / "one"), log(folder / "two"), strict=True):  # Adam sees no wrong scale
        for figure in ["loss", "grad_norm", "weight", "floor", "cap"]:
            assert step[figure] == pytest.approx(other[figure], rel=1e-3), (figure, step, other)
    said, silent = first["two"], second["two"]
    assert "two holds" in said["out"] and "ROUGE-L" in said["out"] and not silent["out"]  # one process prints,
    assert "score after:   0%" in said["err"] and "score" not in silent["err"]  # and scores


def test_a_loss_that_is_no_number_ends_all_processes(done):
    folder, said, _ = done
    assert all(result["broken"]["status"] == 2 for result in said) and "lower --lr" in said[0]["broken"]["err"]
    assert not (folder / "broken/checkpoint.pt").exists()


def test_after_the_shutdown_nobody_holds_the_group(done):
    """Its threads would otherwise live on, and now and then abort a process that ends. What would hold it has to be
    imported after the group is made, and forked processes have imported it before: so the third process is new."""
    *_, (holders, status) = done
    assert (holders, status) == ("0\n", 0)
