"""What the benchmark counts: memory and operations, against what is measured or counted by hand."""

import inspect
import json
from functools import partial

import pytest
import torch

from perce_mini import lora
from perce_mini.dataset import collate
from perce_mini.distributed import replicate
from perce_mini.experiments import bench, gpu
from perce_mini.experiments.bench import some_examples
from perce_mini.experiments.memory import PeakMemory, forward_flops, training_bytes
from perce_mini.model import GPT, GPTConfig
from perce_mini.trainer import Settings, backward


def test_every_figure_is_written(command, tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "measure", partial(bench.measure, batches={bench.VOCAB_SIZE: 1, 3000: 1}))
    result = command(bench.main, "--rounds", 1, "--json", tmp_path / "bench.json")
    assert result.status == 0, result.err
    figures = json.loads((tmp_path / "bench.json").read_text())
    assert {"commit", "date", "base"} <= set(figures)
    shown = dict(line.split() for line in result.out.splitlines())
    for name in bench.LABELS:
        assert figures[name] > 0 and (f"{name}_3000" in figures) == ("naive" not in name)
        assert float(shown[name]) == pytest.approx(figures[name], abs=6e-4)  # both are rounded
    assert (
        1 < figures["floor_over_ce"] < 1.2 and figures["perce_memory_over_ce"] < 1.1 < figures["naive_memory_over_ce"]
    )


def test_ratios_are_of_the_times_and_bytes_of_their_steps(monkeypatch):
    seconds, peaks = (
        {"ce": 2, "perce": 3, "naive": 5, "all scored": 4, "nanogpt": 8},
        {"ce": 10, "perce": 11, "naive": 30},
    )
    monkeypatch.setattr(bench, "our_step", lambda kind, *size: kind)
    monkeypatch.setattr(bench, "nanogpt_step", lambda *size: "nanogpt")
    monkeypatch.setattr(
        bench, "times", lambda steps, rounds, desc: {kind: seconds[step] for kind, step in steps.items()}
    )
    monkeypatch.setattr(bench, "peak_of", peaks.get)
    found = bench.measure(batches={bench.VOCAB_SIZE: 1, 7000: 1})
    assert found.pop("floor_over_ce") == bench.floor(bench.VOCAB_SIZE) and found.pop("floor_over_ce_7000") > 1
    both = {"perce_over_ce": 1.5, "perce_memory_over_ce": 1.1, "ours_over_nanogpt": 2}
    naive = {"naive_over_ce": 2.5, "naive_memory_over_ce": 3}
    assert found == both | naive | {f"{name}_7000": value for name, value in both.items()}


def test_steps_are_of_the_loss_that_they_name():
    """On the same examples: PerCE as written down and the project's take the same step, CE another."""
    torch.manual_seed(0)
    steps = {kind: bench.our_step(kind, 300, 2) for kind in ["ce", "perce", "naive", "all scored"]}
    moved = {}
    for kind, step in steps.items():
        step()
        model = inspect.getclosurevars(step).nonlocals["model"]
        moved[kind] = torch.cat([p.grad.flatten() for p in model.parameters()])
    assert torch.allclose(moved["perce"], moved["naive"], atol=1e-5) and moved["ce"].norm() > 0
    assert not torch.allclose(moved["ce"], moved["perce"], atol=1e-5)
    assert not torch.allclose(moved["ce"], moved["all scored"], atol=1e-5)


def test_peak_memory_counts_what_lives_at_once():
    with PeakMemory() as memory:
        for _ in range(5):
            x = torch.ones(1000)  # 4,000 bytes, the one before is freed after the new one is there
            del x
        kept = [torch.ones(1000) for _ in range(3)]
    assert 12_000 <= memory.peak < 13_000 and len(kept) == 3


@pytest.mark.parametrize("rank, recompute", [(0, True), (0, False), (4, True)])
def test_the_memory_by_arithmetic_is_about_what_is_measured(rank, recompute):
    """One PerCE step in float32 on the CPU: gradients, activations, logits. Weights and optimiser were there before."""
    config = GPTConfig(500, n_layer=6, n_head=4, n_kv_head=2, n_shifted=0, n_embd=64, n_hidden=160)
    model = GPT(config)
    if rank:
        lora.add(model, rank)
    model.recompute = recompute
    batch = collate(some_examples(4, 200, 10, 90, 500))
    with PeakMemory() as watched:
        backward(replicate(model), model, batch, Settings("perce"), 360)
    parts = training_bytes(config, 4, 299, 364, rank, recompute, cast=False)
    assert parts["weights"] == 4 * model.n_parameters()
    expected = parts["gradients"] + parts["activations"] + parts["head"]
    assert 0.8 < watched.peak / expected < 1.25, (watched.peak, parts)


def test_the_floor_counts_the_head():
    """Multiply-adds by hand: blocks, attention over half of the length, the head where tokens are scored."""

    def forward(length, scored, vocab_size):
        hidden = GPTConfig(10, n_embd=128).n_hidden
        block = 4 * 128 * 128 + 3 * 128 * hidden + 128 * length
        return length * 4 * block + scored * 128 * vocab_size

    for vocab_size in [2048, 151936]:
        extra = forward(107, 96, vocab_size) / (3 * forward(537, 96, vocab_size))
        assert bench.floor(vocab_size) == pytest.approx(1 + extra)
    assert bench.floor(151936) > bench.floor(2048)


def test_nanogpts_shape_is_causal_and_learns():
    torch.manual_seed(0)
    model = bench.NanoGPT(50)
    ids = torch.randint(0, 50, (1, bench.LENGTH + 1))
    assert model.loss(ids).item() == pytest.approx(3.9, abs=0.5)  # ln 50
    n = sum(p.numel() for p in model.parameters())
    ours = GPT(GPTConfig(50, n_layer=4, n_head=4, n_kv_head=4, n_shifted=0, n_embd=128)).n_parameters()
    assert abs(n - bench.LENGTH * 128 - ours) / ours < 0.02  # as large, its learned positions aside


def test_steps_on_a_gpu_are_set_against_arithmetic(monkeypatch):
    """With a device that only counts: its clock and its memory are what the steps say."""
    calls = []

    def step(run, model, optimizer, micro_batches, settings, step):
        frozen = sum(not p.requires_grad for p in model.parameters())
        calls.append((settings.loss, step, len(micro_batches[0]), model.recompute, frozen > 0))
        clock[0] += step * {"ce": 1, "perce": 1.5}[settings.loss]

    clock = [0.0]
    small = GPTConfig(300, n_layer=2, n_head=2, n_kv_head=1, n_shifted=0, n_embd=16, head_size=12)
    for owner, name, value in [
        (gpu, "training_step", step),
        (gpu.time, "perf_counter", lambda: clock[0]),
        (gpu, "pick_device", lambda name: torch.device("cpu")),
        (gpu, "peak_flops", lambda device: 1e6),
        (
            gpu,
            "CASES",
            {"all": (small, 0, 3, (30, 5, 10), False, False), "some": (small, 2, 1, (30, 5, 10), True, False)},
        ),
        (torch.cuda, "get_device_name", lambda device: "abacus"),
        (torch.cuda, "synchronize", lambda: None),
        (torch.cuda, "reset_peak_memory_stats", lambda: None),
        (torch.cuda, "max_memory_allocated", lambda: 7e9 if calls[-1][0] == "perce" else 5e9),
    ]:
        monkeypatch.setattr(owner, name, value)
    (made,) = gpu.measure_gpu(None)["tables"]
    assert "abacus" in made["caption"]
    taken, expected = [(step, loss) for step in range(gpu.WARM + gpu.ROUNDS) for loss in ["ce", "perce"]], []
    for how in [(3, False, False), (1, True, True)]:
        expected += [(loss, step, *how) for step, loss in taken]
    assert calls == expected
    seconds = gpu.WARM + (gpu.ROUNDS - 1) / 2  # the median of the steps that count
    attention, mlp = 44 * 2 * 16 * 12 * (2 * 2 + 2), 44 * 2 * 3 * 16 * small.n_hidden
    weights, between, head = attention + mlp, 2 * 44 * 44 * 2 * 12, 10 * 16 * 300
    assert forward_flops(small, 44, 10) == (weights, between, head)
    short = sum(forward_flops(small, 14, 10))
    needed = {
        "every": 3 * (weights + between + head),
        "some": 2 * (weights + head) + 3 * between,
    }  # frozen: no gradient
    (every,), (some,) = made["rows"].values()
    assert every["tokens/s, CE"] == round(3 * 44 / seconds) and some["tokens/s, CE"] == round(44 / seconds)
    assert every["PerCE / CE, time"] == 1.5 and (every["GB, CE"], every["GB, PerCE"]) == (5, 7)
    assert every["share of the peak, CE"] == pytest.approx(2 * 3 * needed["every"] / seconds / 1e6)
    assert some["share of the peak, CE"] == pytest.approx(2 * needed["some"] / seconds / 1e6)
    assert every["its floor by arithmetic"] == pytest.approx(1 + short / needed["every"])
    again = weights + between  # blocks run once more, the head does not
    assert some["its floor by arithmetic"] == pytest.approx(1 + short / (needed["some"] + again))
    for one, parts in [(every, (3, 44, 30, 0, False)), (some, (1, 44, 10, 2, True))]:
        assert one["GB by arithmetic"] == sum(training_bytes(small, *parts).values()) / 1e9
