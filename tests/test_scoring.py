"""Compare metrics with hand calculations, token scores with a full forward pass, and intervals with
a loop over bootstrap samples."""

import math
import random

import numpy as np
import pytest
import torch

from perce_mini import scoring
from perce_mini.meteor import meteor_exact
from perce_mini.rouge import rouge_l
from perce_mini.runtime.errors import UserError
from tests.tiny import TOKENIZER, make_example, make_examples, make_model, response_logprobs


def record(logp, plain, hit, personal, user="u", prediction="a b", reference="a c", labelled=True):
    row = {"user": user, "task": "t", "response": reference}
    if labelled:
        row["personal"] = []
    pir = np.array(logp) - np.array(plain)
    arrays = {"logp": logp, "logp_plain": plain, "pir": pir, "hit": hit, "personal": personal}
    scores = {name: np.array(values) for name, values in arrays.items()}
    texts = {"rouge": rouge_l(prediction, reference), "meteor": meteor_exact(prediction, reference)}
    return {"row": row, "prediction": prediction} | texts | scores


RECORDS = [
    record([-1.0, -2, -3, 0], [-4.0, -2, -3.5, -1], [1, 0, 1, 1], [True, True, False, False]),
    record([-0.5, -6], [-0.5, -7], [0, 1], [False, True], user="v", prediction="c b a d"),
]


def test_metrics_by_hand():
    """PIR is 3, 0, 0.5, 1 | 0, 1. The 1st, 2nd and 6th tokens are personal. PIR > 0.8 flags the
    1st, 4th and 6th."""
    expected = {
        "rouge_l": (0.5 + 1 / 3) / 2,
        "rouge_p": (1 / 2 + 1 / 4) / 2,
        "rouge_r": (1 / 2 + 1 / 2) / 2,
        "meteor_exact": (0.5 * 0.5 + 0.5 / 0.55 * 0.5) / 2,  # matches: a | a and c, in two chunks
        "length": 6 / 4,
        "logp": -12.5 / 6,
        "logp_plain": -18 / 6,
        "logp_personal": (-1 - 2 - 6) / 3,
        "logp_other": (-3 + 0 - 0.5) / 3,
        "personal_accuracy": 2 / 3,
        "pir": 5.5 / 6,
        "pir_precision": 2 / 3,
        "pir_recall": 2 / 3,
        "pir_f1": 2 / 3,
    }
    assert scoring.summarize(RECORDS) == pytest.approx(expected)
    assert list(expected) == list(scoring.METRICS)
    one = scoring.summarize([record([-1.0] * 4, [-3.0, -3, -3, -1], [1] * 4, [False, True] * 2)])
    values = [one[name] for name in ["pir_precision", "pir_recall", "pir_f1"]]
    assert values == pytest.approx([1 / 3, 1 / 2, 2 / 5])


def test_without_labels_or_texts_a_metric_is_none():
    unlabelled = record([-1.0], [-3.0], [1], [False], labelled=False)
    summary = scoring.summarize([unlabelled])
    need_labels = ["logp_personal", "logp_other", "personal_accuracy"]
    need_labels += ["pir_precision", "pir_recall", "pir_f1"]
    assert [name for name in summary if summary[name] is None] == need_labels
    silent = scoring.summarize([RECORDS[0] | {"rouge": None}, RECORDS[1]])
    assert "pir_f1" not in scoring.difference([unlabelled], [unlabelled])
    assert silent["rouge_l"] == pytest.approx(1 / 3) and silent["logp"] == -12.5 / 6


@torch.no_grad()
def test_token_scores_equal_a_full_forward_pass():
    """The batch mixes lengths: a row's scores must not depend on the other rows."""
    model, examples = make_model(seed=2, n_layer=2), make_examples()
    # so all tokens are hits
    examples[3].response = model.generate([examples[3].prompt], 3, end_id=-1)[0]
    all_scores = scoring.score_tokens(model, examples)
    for e, scores in zip(examples, all_scores):
        slow = {name: [] for name in ["logp", "logp_plain", "hit", "entropy"]}
        views = [response_logprobs(model, x, e.response) for x in (e.prompt, e.plain_prompt)]
        for token, persona, plain in zip(e.response, *views):
            slow["logp"].append(persona[token].item())
            slow["logp_plain"].append(plain[token].item())
            slow["hit"].append(float(persona.argmax() == token))
            slow["entropy"].append(-(persona.exp() * persona).sum().item())
        for name, values in slow.items():
            assert scores[name].tolist() == pytest.approx(values, abs=1e-4), name
        assert scores["pir"].tolist() == (scores["logp"] - scores["logp_plain"]).tolist()
    assert not all_scores[1]["pir"].any() and all_scores[0]["pir"].any()  # the 2nd has no profile


def test_records_of_an_evaluation(monkeypatch):
    """With batches of three, records keep their own row, scores and text; each batch has a seed."""
    model, examples, calls = make_model(), make_examples(), []

    def generate(*args):
        calls.append(args[1:])
        return [TOKENIZER.encode(f"text {len(prompt)}") for prompt in args[0]]

    monkeypatch.setattr(model, "generate", generate)
    records = scoring.evaluate(model, TOKENIZER, examples, 7, 0.4, seed=3, batch_size=3)
    assert calls == [(7, TOKENIZER.end, 0.4, 3), (7, TOKENIZER.end, 0.4, 6)]
    for e, one in zip(examples, records):
        assert one["row"] is e.row and one["response"] == e.response
        assert one["personal"].tolist() == e.personal
        assert one["profile_indices"] == e.profile_indices
        assert one["prediction"] == f"text {len(e.prompt)}"
        assert one["rouge"] == rouge_l(one["prediction"], e.row["response"])
        assert np.allclose(one["logp"], scoring.score_tokens(model, [e])[0]["logp"], atol=1e-4)
    silent = scoring.evaluate(model, TOKENIZER, examples, 0, 0.4)
    assert [one["rouge"] for one in silent] == [None] * 4 and len(calls) == 2


def test_a_batch_that_needs_too_much_memory_is_halved(monkeypatch):
    model, examples = make_model(), make_examples()
    expected = scoring.evaluate(model, TOKENIZER, examples, 5, 0.0, batch_size=1)
    generate, sizes, limit = model.generate, [], 2

    def generate_few(prompts, *how):
        sizes.append(len(prompts))
        if len(prompts) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
        return generate(prompts, *how)

    monkeypatch.setattr(model, "generate", generate_few)
    records = scoring.evaluate(model, TOKENIZER, examples, 5, 0.0)
    for name in ["prediction", "row"]:
        assert [one[name] for one in records] == [one[name] for one in expected]
    assert sizes == [4, 2, 2]
    limit = 0
    with pytest.raises(torch.OutOfMemoryError):
        scoring.evaluate(model, TOKENIZER, examples, 5, 0.0)


def test_scores_that_are_not_finite_are_an_error():
    model = make_model()
    model.norm.weight.data.fill_(math.inf)
    with pytest.raises(UserError, match="out/perce"):
        scoring.evaluate(model, TOKENIZER, [make_example()], 4, 0.4, desc="out/perce")


def two_runs():
    """Make two runs on the same 3 texts by each of 8 users. Their difference varies by user."""
    rng, runs = np.random.default_rng(0), ([], [])
    for i in range(24):
        n, user = int(rng.integers(1, 6)), i // 3
        logp, personal = rng.normal(-2, 1, n), rng.random(n) < 0.3
        for records, shift in zip(runs, [0, 0.2 * (user % 5) - 0.3]):
            args = logp + shift, logp - 1, rng.random(n) < 0.5, personal
            records.append(record(*args, user=f"u{user}"))
    return runs


def ratio(tallies):
    numerators, denominators = zip(*tallies)
    return sum(numerators) / sum(denominators) if sum(denominators) else math.nan


def test_intervals_equal_a_loop_over_draws():
    """Do this 1,000 times: draw users with replacement, sum their records and compare the runs."""
    runs, rng = two_runs(), random.Random(0)
    fast, draws = scoring.difference(runs[1], runs[0]), {name: [] for name in scoring.METRICS}
    shares = [[scoring.tallies(one) for one in run] for run in runs]
    for _ in range(1000):
        chosen = [3 * user + i for user in rng.choices(range(8), k=8) for i in range(3)]
        for name in draws:
            before, after = (ratio([run[i][name] for i in chosen]) for run in shares)
            draws[name].append(after - before)
    for name, (middle, low, high) in fast.items():
        before, after = (ratio([tally[name] for tally in run]) for run in shares)
        assert middle == pytest.approx(after - before)
        slow = np.nanquantile(draws[name], [0.025, 0.975])
        near = 0.1 * (slow[1] - slow[0]) + 1e-9
        assert (low, high) == pytest.approx(tuple(slow), abs=near), name
    assert fast["logp"][2] - fast["logp"][1] > 0.3
