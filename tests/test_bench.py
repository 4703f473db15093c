"""What the benchmark counts: memory and operations, against what is measured or counted by hand."""

import json
from types import SimpleNamespace

import pytest
import torch

from perce_mini import bench, lora, report
from perce_mini.bench import PeakMemory
from perce_mini.dataset import collate
from perce_mini.model import GPT, GPTConfig
from perce_mini.trainer import backward


def test_every_figure_is_written(command, tmp_path):
    result = command(bench.main, "--rounds", 1, "--batch-size", 1, "--device", "cpu", "--json", tmp_path / "bench.json")
    assert result.status == 0, result.err
    figures = json.loads((tmp_path / "bench.json").read_text())
    assert {"perce_over_ce", "floor_over_ce", "naive_over_ce", "rouge_speedup", "perce_memory_over_ce", "cache_speedup"} <= set(figures)
    assert 1 < figures["floor_over_ce"] < 1.2 and figures["rouge_speedup"] > 50
    assert figures["perce_memory_over_ce"] <= 1.05 < figures["naive_memory_over_ce"]


def test_peak_memory_counts_what_lives_at_once():
    with PeakMemory() as memory:
        for _ in range(5):
            x = torch.ones(1000)  # 4,000 bytes, the one before is freed after the new one is there
            del x
        kept = [torch.ones(1000) for _ in range(3)]
    assert 12_000 <= memory.peak < 13_000 and len(kept) == 3


@pytest.mark.parametrize("rank, recompute", [(0, True), (0, False), (4, True)])
def test_the_memory_by_arithmetic_is_about_what_is_measured(rank, recompute):
    """One PerCE step in float32 on the CPU: gradients, activations and logits; weights and optimiser state are made before."""
    config = GPTConfig(500, n_layer=6, n_head=4, n_kv_head=2, n_shifted=0, n_embd=64, n_hidden=160)
    model = GPT(config)
    if rank:
        lora.add(model, rank)
    model.recompute = recompute
    batch = collate(bench.some_examples(4, 200, 10, 90, 500))
    with bench.PeakMemory() as memory:
        backward(model, [batch], {"loss": "perce", "clip_min": 0.8, "clip_max": 5.0}, torch.device("cpu"), 360)
    parts = bench.training_bytes(config, 4, 299, 364, rank, recompute, cast=False)
    assert parts["weights"] == 4 * model.n_parameters()
    expected = parts["gradients"] + parts["activations"] + parts["logits"]
    assert 0.8 < memory.peak / expected < 1.25, (memory.peak, parts)


def test_utilisation_counts_the_models_own_operations(monkeypatch, tmp_path):
    config = GPTConfig(500, 64, n_layer=2, n_head=2, n_kv_head=2, n_shifted=0, n_embd=32)
    monkeypatch.setattr(GPT, "compile_blocks", lambda model: None)
    monkeypatch.setattr(bench, "PEAK_FLOPS", {"cpu": 1e12})
    figures = bench.utilisation(SimpleNamespace(batch_size=2, rounds=1), torch.device("cpu"), config, 40, 4, 21)
    by_hand = 6 * (64 * 2 * (4 * 32 * 32 + 3 * 32 * config.n_hidden + 32 * 64) + 21 * 32 * 500)  # 2 operations, 3 times: forward and backward
    assert figures["ce_utilisation"] == pytest.approx(figures["ce_tokens_per_s"] / 64 * by_hand / 1e12)
    assert figures["floor_over_ce"] == pytest.approx(1 + 2 * (24 * 2 * (4 * 32 * 32 + 3 * 32 * config.n_hidden + 32 * 24) + 21 * 32 * 500) / by_hand)
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    assert "Not recorded yet" in report.gpu_text()
    (tmp_path / "gpu.json").write_text(json.dumps(figures))
    assert "| CE, model FLOP utilisation |" in report.gpu_text()


def test_a_gpu_is_asked_for_by_name(command):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    assert "--device cuda: not available" in command(bench.main, "--gpu").error
    assert "a CUDA device, not cpu" in command(bench.main, "--gpu", "--device", "cpu").error
