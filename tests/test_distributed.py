"""Two processes end up with the same weights as one process that trains on the same batches."""

import os
import socket

import pytest
import torch

import train
from perce_mini.runtime import checkpoint
from tests.conftest import call, read_log, start_process


def free_port():
    with socket.create_server(("localhost", 0)) as server:
        return str(server.getsockname()[1])


def set_environment(rank, world_size, port):
    """Set the environment variables that torchrun sets."""
    os.environ |= {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size}
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": port}


def be_one_of_two(rank, commands):
    """Do the work of one of two processes: {run: (port, flags)} -> {run: result of train.py}."""
    torch.set_num_threads(1)
    results = {}
    for name, (port, words) in commands.items():
        set_environment(rank, "2", port)
        results[name] = vars(call(train.main, *words))
    return results


@pytest.fixture(scope="module")
def done(world, start, tmp_path_factory):
    """Return (folder, the results of two processes). This process trains the same runs alone.

    A step has 2 x 2 x 3 examples. The last step of an epoch of 27 examples has a single
    micro-batch, so the second process gets none. It must still help to sum the gradients.
    """
    folder = tmp_path_factory.mktemp("distributed")
    huge = checkpoint.load(start)
    huge.model.embedding.weight.data *= 1e25
    checkpoint.save(folder / "huge", huge.model, huge.tokenizer, huge.settings, 4)
    usual = ["--data", world, "--init", start, "--examples", 27, "--steps", 8, "--batch-size", 3]
    usual = [*usual, "--lr", 1e-2, "--eval-examples", 2, "--device", "cpu", "--out"]
    two = [*usual, folder / "two", "--grad-accum", 2]
    broken = [*usual, folder / "broken", "--init", folder / "huge"]
    commands = {"two": (free_port(), two), "broken": (free_port(), broken)}
    pair = [start_process(be_one_of_two, rank, commands) for rank in "01"]
    one = call(train.main, *usual, folder / "one", "--grad-accum", 4)
    assert one.status == 0, one.err
    return folder, [process.get(120) for process in pair]


def test_two_processes_make_the_weights_of_one(start, done):
    folder, (first, second) = done
    weights = []
    for run in [start, folder / "one", folder / "two"]:
        model = checkpoint.load(run).model
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    before, one, two = weights
    assert (two - one).norm() < 1e-3 * (one - before).norm()
    for one, two in zip(read_log(folder / "one"), read_log(folder / "two"), strict=True):
        for name in ["loss", "ce", "grad_norm", "weight", "floor", "cap", "pir"]:
            assert two[name] == pytest.approx(one[name], rel=1e-3, abs=1e-5), (name, one, two)
    assert "ROUGE-L" in first["two"]["out"] and not second["two"]["out"]  # only one process prints
    assert "score" in first["two"]["err"] and "score" not in second["two"]["err"]  # only one scores


def test_a_loss_that_is_not_finite_ends_both_processes(done):
    folder, results = done
    assert [result["broken"]["status"] for result in results] == [2, 2]
    assert "--lr" in results[0]["broken"]["err"]
    assert not (folder / "broken/checkpoint.pt").exists()
