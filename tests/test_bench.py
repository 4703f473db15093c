import json

import torch

from perce_mini import bench
from perce_mini.bench import PeakMemory


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
