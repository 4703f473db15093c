"""One optimisation step against slow computations, the learning rate, and a run from step to step."""

import copy
import json
from dataclasses import asdict, replace

import pytest
import torch

from perce_mini import checkpoint, distributed, trainer
from perce_mini.dataset import Row, collate, encode_example
from perce_mini.model import GPT, GPTConfig
from perce_mini.percontrast import perce_loss, token_logprobs
from perce_mini.tokenizer import Tokenizer
from perce_mini.trainer import Settings, backward, fit, learning_rate, training_step

TEXT = "Howdy, it boils. Howdy, it shines. a red kettle a blue lamp "
TOKENIZER = Tokenizer.train(TEXT * 10, 300)


def make_model(seed=0, n_layer=1):
    torch.manual_seed(seed)
    model = GPT(GPTConfig(TOKENIZER.vocab_size, n_layer=n_layer, n_head=2, n_kv_head=2, n_embd=32))
    model.embedding.weight.data *= 20  # so that the views differ, and with them the weights
    return model


def example(response="Howdy, it boils.", query="a red kettle", lamp="Howdy, it shines."):
    profile = [{"query": "a blue lamp", "response": lamp}] if lamp else []
    row = Row(user="u", task="t", query=query, response=response, profile=profile)
    return encode_example(row, TOKENIZER, 512)


EXAMPLES = [example(), example("red", lamp=""), example("it boils and it boils, it boils"), example("it shines")]


def gradient(model):
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def part(model, groups, settings, weight_fn=None):
    """Tally and gradient of the micro-batches of one step."""
    model.zero_grad()
    n_tokens = sum(len(e.response) for group in groups for e in group)
    run = distributed.replicate(model)
    tallies = [backward(run, model, collate(group), settings, n_tokens, weight_fn) for group in groups]
    return sum(tallies), gradient(model)


def take_steps(model, settings, groups, n, weight_fn=None):
    """The figures of `n` steps on the same examples."""
    optimizer, run = trainer.make_optimizer(model, settings), distributed.replicate(model)
    return [training_step(run, model, optimizer, groups, settings, step, weight_fn) for step in range(n)]


def slow_logprobs(model, e, prompt):
    """log P of an example's response from the logits of every position."""
    labels = [-100] * (len(prompt) - 1) + e.response
    return token_logprobs(model(torch.tensor([(prompt + e.response)[:-1]])), torch.tensor([labels]))


# -------------------------------------------------------------------------------------------- one step


def test_a_step_is_the_step_of_perce_loss_on_full_logits():
    model, settings = make_model(n_layer=2), Settings(clip_min=-0.5, clip_max=0.5)
    tally, fast = part(model, [EXAMPLES[:2], EXAMPLES[2:]], settings)
    model.zero_grad()
    persona = torch.cat([slow_logprobs(model, e, e.prompt) for e in EXAMPLES])
    plain = torch.cat([slow_logprobs(model, e, e.plain_prompt) for e in EXAMPLES]).detach()
    assert (persona - plain).clamp(-0.5, 0.5).std() > 0.1  # the weights are not all at one bound
    loss = perce_loss(persona, plain, -0.5, 0.5)
    loss.backward()
    assert torch.allclose(fast, gradient(model), atol=1e-5, rtol=1e-3)
    assert tally[0].item() == pytest.approx(loss.item(), rel=1e-5)


@pytest.mark.parametrize("loss", ["ce", "lossce", "entce", "perce"])
def test_weights_floor_and_cap_are_counted_as_by_hand(loss):
    """From the logits of every position, weight by weight in plain Python."""
    model, weights = make_model(), []
    tally, _ = part(model, [EXAMPLES], Settings(loss=loss, clip_min=0.25, clip_max=1.5))
    for e in EXAMPLES:
        persona = model(torch.tensor([e.prompt + e.response]))[0].log_softmax(-1)
        plain = model(torch.tensor([e.plain_prompt + e.response]))[0].log_softmax(-1)
        for i, token in enumerate(e.response):
            here, there = persona[len(e.prompt) + i - 1], plain[len(e.plain_prompt) + i - 1]
            entropy = -sum(x.exp() * x for x in here)
            score = {"lossce": -here[token], "entce": entropy, "perce": here[token] - there[token]}
            weights.append(1.0 if loss == "ce" else min(max(score[loss].item(), 0.25), 1.5))
    floor, cap = sum(w <= 0.25 for w in weights), sum(w >= 1.5 for w in weights)
    assert tally[1:].tolist() == pytest.approx([sum(weights), floor, cap], rel=1e-4)
    assert loss != "perce" or 0 < cap < floor


def test_padding_and_splitting_into_micro_batches_change_nothing():
    model, settings = make_model(n_layer=2), Settings(clip_min=-1)
    a, b, c, _ = EXAMPLES
    tally, whole = part(model, [[a, b, c]], settings)
    for groups in ([[a], [b], [c]], [[a, c], [b]], [[c, b, a]]):
        parts, split = part(model, groups, settings)
        assert torch.allclose(parts, tally, rtol=1e-5) and torch.allclose(split, whole, atol=1e-5)


def test_a_rule_of_ones_own_replaces_the_weights():
    model = make_model()

    def weight_fn(batch, logp_persona, logp_plain):
        assert not logp_persona.requires_grad and len(logp_plain) == len(batch.labels)
        return torch.full_like(logp_persona, 2.0)

    _, ce = part(model, [EXAMPLES], Settings(loss="ce"))
    tally, twice = part(model, [EXAMPLES], Settings(loss="perce"), weight_fn)
    assert torch.allclose(twice, 2 * ce, atol=1e-6) and tally[1] == 2 * sum(len(e.response) for e in EXAMPLES)


@pytest.mark.parametrize("loss", ["ce", "entce", "perce"])
def test_bfloat16_reaches_every_weight(monkeypatch, loss):
    """Computed in bfloat16, every weight's gradient is about that of float32."""
    model, gradients = make_model(n_layer=2), []
    for enabled in [False, True]:
        cast = torch.autocast("cpu", torch.bfloat16, enabled=enabled)
        monkeypatch.setattr(trainer, "autocast", lambda device, cast=cast: cast)
        part(model, [EXAMPLES], Settings(loss=loss))
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters()})
    for name, exact in gradients[0].items():
        assert (gradients[1][name] - exact).norm() < 0.1 * exact.norm(), name


# ------------------------------------------------------------------------------------------- optimiser


def test_the_rate_rises_to_its_peak_and_falls_to_zero():
    settings = Settings(lr=0.5, steps=20, warmup=0.25)
    rates = [learning_rate(step, settings) for step in range(20)]
    assert rates[0] == pytest.approx(0.1) and rates[4] == rates[5] == pytest.approx(0.5)
    assert rates[-1] == pytest.approx(0.5 / 15) and learning_rate(20, settings) == 0
    assert [learning_rate(0, replace(settings, warmup=w)) for w in [0, 1]] == pytest.approx([0.5, 0.025])
    assert rates[:5] == sorted(set(rates[:5])) and rates[5:] == sorted(set(rates[5:]), reverse=True)


def test_a_step_is_adamw_with_its_clipped_gradient_by_hand():
    """At the first step Adam's m and v, freed of their bias, are g and g^2: w moves by lr (g / |g| + decay * w).

    The rate is the first of five that rise to 0.5.
    """
    settings, model = Settings(loss="ce", lr=0.5, steps=10, warmup=0.5), make_model()
    before = torch.cat([p.detach().flatten() for p in model.parameters()])
    _, raw = part(model, [EXAMPLES], settings)
    optimizer, run = trainer.make_optimizer(model, settings), distributed.replicate(model)
    figures = training_step(run, model, optimizer, [EXAMPLES], settings, 0)
    after = torch.cat([p.detach().flatten() for p in model.parameters()])
    assert figures["grad_norm"] == pytest.approx(raw.norm().item(), rel=1e-4) and raw.norm() > 1
    g = raw / raw.norm()  # clipped to a norm of 1
    assert torch.allclose(gradient(model), g, atol=1e-6)
    expected = before - 0.1 * (g / (g.abs() + 1e-8) + 0.01 * before)
    large = g.abs() > 1e-5
    assert large.sum() > 1000 and torch.allclose(after[large], expected[large], atol=1e-4)
    assert optimizer.param_groups[0]["betas"] == (0.9, 0.95) and figures["lr"] == optimizer.param_groups[0]["lr"] == 0.1


def test_a_step_of_several_micro_batches_is_the_sum_of_its_parts():
    """Which are of different sizes: each divides by the tokens of them all."""
    settings, model, groups = Settings(clip_min=-1), make_model(), [EXAMPLES[:1], EXAMPLES[1:]]
    tally, raw = part(model, groups, settings)
    n_tokens = sum(len(e.response) for e in EXAMPLES)
    (figures,) = take_steps(model, settings, groups, 1)
    assert figures["grad_norm"] == pytest.approx(raw.norm().item(), rel=1e-5)
    assert figures["loss"] == pytest.approx(tally[0].item())
    shares = [figures[name] * n_tokens for name in ["weight", "floor", "cap"]]
    assert shares == pytest.approx(tally[1:].tolist(), abs=1e-4)


def test_small_gradients_are_left_as_they_are():
    def small(batch, logp_persona, logp_plain):
        return torch.full_like(logp_persona, 1e-3)

    settings, model = Settings(loss="ce", lr=1e-3), make_model()
    _, raw = part(model, [EXAMPLES], settings, small)
    take_steps(model, settings, [EXAMPLES], 1, small)
    assert raw.norm() < 1 and torch.allclose(gradient(model), raw, rtol=1e-4)


def test_every_step_takes_its_own_rate():
    settings, model = Settings(lr=1e-3, steps=4, warmup=0.5), make_model()
    figures = take_steps(model, settings, [EXAMPLES], 4)
    assert [f["lr"] for f in figures] == [learning_rate(step, settings) for step in range(4)]
    assert [f["step"] for f in figures] == [1, 2, 3, 4] and figures[-1]["tokens_s"] > 0


# --------------------------------------------------------------------------------------------- the run


WORDS, STARTS = ["kettle", "lamp", "Howdy", "shines"], ["boils", "red", "blue", "it", "Howdy", "a"]


@pytest.mark.parametrize("seed", [0, 1, 4])
def test_perce_lifts_a_personal_word_above_ce_at_the_same_step(seed):
    """The method in one test. Users differ in one word, which their profile tells; how a text starts nobody can know.

    The model has begun to read profiles (a base model) and goes on meeting texts without one:
    then PIR is large at the users' own words alone.
    """
    known = [example(f"{start} is a {word}", "a red", f"is a {word}") for word in WORDS for start in STARTS]
    mixed = known + [example(e.row["response"], "a red", "") for e in known]

    def own_word(model):
        """Mean probability of the last word."""
        n_ends = {word: len(TOKENIZER.encode(f" {word}")) + 1 for word in WORDS}
        at = [-n_ends[e.row["response"].split()[-1]] for e in known]
        return sum(slow_logprobs(model, e, e.prompt)[i].exp().item() for e, i in zip(known, at)) / len(known)

    base = make_model(seed)
    take_steps(base, Settings(loss="ce", lr=3e-3, steps=60), [mixed], 30)
    after = {}
    for loss in ["ce", "perce"]:
        model = copy.deepcopy(base)
        take_steps(model, Settings(loss=loss, lr=2e-3, steps=60, warmup=0), [mixed], 10)
        after[loss] = own_word(model)
    assert own_word(base) < after["ce"] < after["perce"] - 0.005, after


def test_a_run_is_saved_with_its_log(tmp_path):
    settings = Settings(steps=5, batch_size=2, lr=1e-3)
    fit(make_model(), TOKENIZER, EXAMPLES, settings, tmp_path / "run", save_every=2)
    state = checkpoint.read(tmp_path / "run")
    assert state["step"] == 5 and state["settings"] == asdict(settings)
    log = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert log == state["log"] and [line["step"] for line in log] == [1, 2, 3, 4, 5]


def test_a_run_that_goes_on_has_the_random_state_it_was_left_with(tmp_path):
    settings = Settings(steps=2, batch_size=2)
    torch.manual_seed(5)
    fit(make_model(), TOKENIZER, EXAMPLES, settings, tmp_path / "run")
    drawn = torch.rand(3)
    model, tokenizer, state = checkpoint.load(tmp_path / "run")
    torch.manual_seed(99)
    fit(model, tokenizer, EXAMPLES, settings, tmp_path / "run", state=state)
    assert torch.equal(torch.rand(3), drawn)


def test_another_run_is_not_gone_on_with():
    state = {"settings": asdict(Settings(lr=0.004))}
    trainer.check_same_run(state, Settings(lr=0.004), "out/x")
    with pytest.raises(trainer.UserError, match="out/x was made with lr 0.004, not 0.5"):
        trainer.check_same_run(state, Settings(lr=0.5), "out/x")
