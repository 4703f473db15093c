"""What the benchmark counts: memory and operations, against what is measured or counted by hand."""

import json
from types import SimpleNamespace

import pytest
import torch

from perce_mini import lora
from perce_mini.dataset import collate
from perce_mini.distributed import replicate
from perce_mini.experiments import bench, others, speed
from perce_mini.experiments.memory import PeakMemory, memory_table, training_bytes
from perce_mini.experiments.speed import some_examples
from perce_mini.experiments.tabulate import texts
from perce_mini.model import GPT, GPTConfig
from perce_mini.trainer import Settings, backward


def test_every_figure_is_written(command, tmp_path, monkeypatch):
    monkeypatch.setitem(bench.measure.__globals__, "speed", lambda rounds: speed.speed(rounds, {2048: 1}))
    result = command(bench.main, "--rounds", 1, "--batch-size", 1, "--device", "cpu", "--json", tmp_path / "bench.json")
    assert result.status == 0, result.err
    figures = json.loads((tmp_path / "bench.json").read_text())
    names = {"perce_over_ce", "floor_over_ce", "naive_over_ce", "rouge_speedup", "cache_speedup", "commit", "date"}
    assert names <= set(figures)
    assert 1 < figures["floor_over_ce"] < 1.2 and figures["rouge_speedup"] > 50
    assert figures["perce_memory_over_ce"] <= 1.05 < figures["naive_memory_over_ce"]
    rows = texts(others.cost_table("", figures, "corner"))
    assert rows[0] == ["corner", "cpu"] and len(rows) == 1 + len(bench.LABELS.keys() & figures.keys())
    assert ["PerCE step / CE step, time", f"{figures['perce_over_ce']:.2f}"] in rows


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


def test_utilisation_counts_the_models_own_operations(monkeypatch):
    config = GPTConfig(500, 64, n_layer=2, n_head=2, n_kv_head=2, n_shifted=0, n_embd=32)
    monkeypatch.setattr(GPT, "compile_blocks", lambda model: None)
    monkeypatch.setattr(bench, "PEAK_FLOPS", {"cpu": 1e12})
    figures = bench.utilisation(SimpleNamespace(batch_size=2, rounds=1), torch.device("cpu"), config, 40, 4, 21)

    def operations(length):
        """2 per multiplication: in two layers, and in the projection of 21 tokens on 500 entries."""
        return 2 * (length * 2 * (4 * 32 * 32 + 3 * 32 * config.n_hidden + 32 * length) + 21 * 32 * 500)

    by_hand = 3 * operations(64)  # forward, and twice as much backward
    assert figures["ce_utilisation"] == pytest.approx(figures["ce_tokens_per_s"] / 64 * by_hand / 1e12)
    assert figures["floor_over_ce"] == pytest.approx(1 + operations(24) / by_hand)


def test_the_gpus_figures_and_the_memory_become_tables(monkeypatch, tmp_path):
    monkeypatch.setattr(others, "RESULTS", tmp_path)
    monkeypatch.setattr(others, "read", lambda name: json.loads((tmp_path / f"{name}.json").read_text()))
    assert others.recorded() == {}
    figures = {"device": "H100", "parameters": 124e6, "ce_utilisation": 0.4, "commit": "0" * 40, "date": "2026-01-01"}
    (tmp_path / "gpu.json").write_text(json.dumps(figures))
    (tmp_path / "memory.json").write_text(json.dumps(memory_table() | {"versions": {"python": "3"}}))
    found = others.recorded()
    assert texts(found["gpu"]["tables"][0]) == [["", "H100"], ["CE, model FLOP utilisation", "0.40"]]
    head, *rows = texts(found["memory"]["tables"][0])
    assert head[0] == "GB" and head[-1] == "all" and len(rows) == 3
    assert float(rows[0][-1]) == pytest.approx(sum(map(float, rows[0][1:-1])), abs=0.3)


def test_a_gpu_is_asked_for_by_name(command):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    assert "--device cuda: not available" in command(bench.main, "--gpu").error
    assert "a CUDA device, not cpu" in command(bench.main, "--gpu", "--device", "cpu").error


def test_large_vocabularies_are_measured_beside_nanogpts_shape():
    figures = speed.speed(1, {3000: 2})
    assert figures["ours_over_nanogpt_3000"] == pytest.approx(
        figures["ours_tokens_per_s_3000"] / figures["nanogpt_tokens_per_s_3000"]
    )
    assert figures["perce_over_ce_3000"] == pytest.approx(
        figures["ce_tokens_per_s_3000"] / figures["perce_tokens_per_s_3000"]
    )
    assert figures["perce_memory_over_ce_3000"] < 1.1 and 1.1 < figures["floor_over_ce_3000"] < 1.34


def test_the_floor_counts_the_head():
    """Multiply-adds by hand: blocks, attention over half of the length, the head where tokens are scored."""

    def forward(length, scored, vocab_size):
        hidden = GPTConfig(10, n_embd=128).n_hidden
        block = 4 * 128 * 128 + 3 * 128 * hidden + 128 * length
        return length * 4 * block + scored * 128 * vocab_size

    for vocab_size in [2048, 151936]:
        extra = forward(106, 97, vocab_size) / (3 * forward(256, 97, vocab_size))
        assert speed.floor(vocab_size) == pytest.approx(1 + extra)
    assert speed.floor(151936) > speed.floor(2048)


def test_nanogpts_shape_is_causal_and_learns():
    torch.manual_seed(0)
    model = speed.NanoGPT(50)
    ids = torch.randint(0, 50, (1, speed.LENGTH + 1))
    assert model.loss(ids).item() == pytest.approx(3.9, abs=0.5)  # ln 50
    n = sum(p.numel() for p in model.parameters())
    ours = GPT(GPTConfig(50, n_layer=4, n_head=4, n_kv_head=4, n_shifted=0, n_embd=128)).n_parameters()
    assert abs(n - speed.LENGTH * 128 - ours) / ours < 0.02  # as large, its learned positions aside
