"""The `cost` experiment counts memory and operations correctly, and its steps are correct."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from perce_mini.experiments import cost
from perce_mini.experiments.cost import Model, PeakMemory, ce_operations
from perce_mini.model import GPTConfig
from perce_mini.trainer import Settings, make_optimizer

SMALL = {"n_layer": 1, "n_head": 2, "n_kv_head": 2, "n_shifted": 0, "n_embd": 16}


def test_peak_memory_counts_what_lives_at_the_same_time():
    with PeakMemory() as memory:
        for _ in range(5):
            x = torch.ones(1000)  # 4,000 bytes
            del x
        kept = [torch.ones(1000) for _ in range(3)]
        views = [x[:500] for x in kept]  # views take no memory
    assert 12_000 <= memory.peak < 13_000 and len(views) == 3


def test_figures_are_ratios_of_the_steps_that_they_name(monkeypatch):
    seconds = {("ce", False): 2, ("perce", False): 3, ("perce", True): 7}
    clock, steps = [0.0], []

    def take_step(model, optimizer, examples, loss, naive):
        steps.append((loss, naive))
        clock[0] += seconds[steps[-1]]
        return torch.ones(1000 * seconds[steps[-1]])

    monkeypatch.setattr(cost, "take_step", take_step)
    monkeypatch.setattr(cost.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(cost, "matrix_peak", lambda device: 1e9)
    for name, fake in {"ROUNDS": 2, "SMALL": SMALL, "BATCHES": {4096: 1, 300: 2}}.items():
        monkeypatch.setattr(cost, name, fake)
    (table,) = cost.measure_cost(None)["tables"]
    assert steps == [*seconds] * 8  # the losses alternate; the last steps measure memory
    figures = [row["seeds"][0]["300"] for row in table["rows"]]
    share = ce_operations(GPTConfig(300, **SMALL), 2) / 2e9
    assert figures == [1.5, 1.5, 3.5, 3.5, 8e-6, 2 * 538 / 2, share]


def test_the_naive_step_is_a_step_of_perce_and_needs_more_memory():
    example = cost.Example({}, [1, 2, 3, 4] * 9, [3, 4], [5, 6, 7], [])
    gradients, peaks = {}, {}
    for loss, naive in [("ce", False), ("perce", False), ("perce", True)]:
        torch.manual_seed(0)
        model = Model(GPTConfig(300, **SMALL))
        model.embedding.weight.data *= 50  # otherwise PIR is near 0 everywhere
        optimizer = make_optimizer(model, Settings())
        with PeakMemory() as memory:
            cost.take_step(model, optimizer, [example] * 4, loss, naive)
        gradients[loss, naive] = torch.cat([p.grad.flatten() for p in model.parameters()])
        peaks[loss, naive] = memory.peak
    assert torch.allclose(gradients["perce", False], gradients["perce", True], atol=1e-6)
    assert not torch.allclose(gradients["perce", False], gradients["ce", False], atol=1e-3)
    assert peaks["perce", True] > 2 * peaks["perce", False]


def test_operations_are_those_that_torch_counts(monkeypatch):
    """Except for attention, which torch does not count on the CPU."""
    for name, n in {"PERSONA": 20, "QUERY": 3, "RESPONSE": 8}.items():
        monkeypatch.setattr(cost, name, n)
    config = GPTConfig(300, **SMALL)
    model = Model(config)
    ids = torch.randint(0, 300, (2, 30))
    with FlopCounterMode(display=False) as counter:
        model(ids, torch.arange(16)).sum().backward()
    attention = 6 * 2 * 30 * 30 * config.n_embd
    assert ce_operations(config, 2) - attention == counter.get_total_flops()
