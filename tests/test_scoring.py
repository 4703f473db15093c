"""The figures of the table, against slow counts."""

import numpy as np
import pytest
import torch

from perce_mini import checkpoint, scoring
from perce_mini.dataset import encode_example, read_examples
from perce_mini.errors import UserError
from perce_mini.rouge import rouge_l


def record(logp, plain, hit, personal, user="u", prediction="a b", reference="a c", known=True):
    row = {"user": user, "task": "t", "response": reference} | ({"personal": []} if known else {})
    arrays = {
        "logp": logp,
        "logp_plain": plain,
        "pir": np.array(logp) - np.array(plain),
        "hit": hit,
        "personal": personal,
    }
    scored = {name: np.array(values) for name, values in arrays.items()}
    return {"row": row, **scored, "prediction": prediction, "rouge": rouge_l(prediction, reference)}


RECORDS = [
    record([-1.0, -2, -3, 0], [-4.0, -2, -3.5, -1], [1, 0, 1, 1], [True, True, False, False]),
    record([-0.5, -6], [-0.5, -7], [0, 1], [False, True], user="v", prediction="a c"),
]


def test_summary_by_hand():
    """PIR is 3, 0, 0.5, 1 | 0, 1; personal are the 1st, 2nd and 6th token; found (PIR > 0.8) the 1st, 4th and 6th."""
    summary = scoring.summarize(RECORDS)
    assert summary["logp"] == pytest.approx((-1 - 2 - 3 - 0.5 - 6) / 6)
    assert summary["logp_personal"] == pytest.approx((-1 - 2 - 6) / 3)
    assert summary["logp_other"] == pytest.approx((-3 + 0 - 0.5) / 3)
    assert summary["personal_accuracy"] == pytest.approx(2 / 3)
    assert summary["pir"] == pytest.approx(5.5 / 6)
    assert (summary["pir_precision"], summary["pir_recall"], summary["pir_f1"]) == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    assert summary["rouge_l"] == pytest.approx((0.5 + 1) / 2)


def test_unknown_personal_tokens_are_unknown_rather_than_none():
    summary = scoring.summarize([record([-1.0], [-3.0], [1], [False], known=False)])
    assert summary["pir_f1"] is None and summary["personal_accuracy"] is None and summary["logp"] == -1


def test_one_user_gives_no_interval():
    d, low, high = scoring.difference([dict(RECORDS[0], logp=RECORDS[0]["logp"] - 1)], RECORDS[:1])["logp"]
    assert d == pytest.approx(-1) and np.isnan([low, high]).all()


@torch.no_grad()
def test_scores_that_are_not_finite_are_an_error(trained, world):
    model, tokenizer, _ = checkpoint.load(trained / "out/perce")
    model.norm.weight.fill_(float("inf"))
    examples = [encode_example(row, tokenizer, 1100) for row in read_examples(world / "test.jsonl")[:3]]
    for n_tokens in [0, 4]:
        with pytest.raises(UserError, match="out/perce: the model's probabilities are not finite"):
            scoring.evaluate(model, tokenizer, examples, n_tokens, 0.4, desc="out/perce")


def test_a_difference_has_an_interval_and_none_with_itself():
    worse = [dict(r, logp=r["logp"] - 1) for r in RECORDS]
    d, low, high = scoring.difference(worse, RECORDS)["logp"]
    assert (d, low, high) == pytest.approx((-1, -1, -1))  # the same on every example: no spread when paired
    assert scoring.difference(RECORDS, RECORDS)["rouge_l"] == (0, 0, 0)


@pytest.mark.parametrize("n", [20, 6])
def test_the_bootstrap_draws_users(n):
    """20 users of 50 equal examples each are 20 observations: the interval is that of 20."""
    rng = np.random.default_rng(0)
    effects = rng.normal(size=n)
    zero = [record([0.0], [0.0], [0], [False], user=f"u{u}") for u in range(n) for _ in range(50)]
    moved = [dict(r, logp=np.array([effects[i // 50]])) for i, r in enumerate(zero)]
    d, low, high = scoring.difference(moved, zero)["logp"]
    assert d == pytest.approx(effects.mean())
    assert high - low == pytest.approx(2 * 1.96 * effects.std() / n**0.5, rel=0.15)


@pytest.mark.parametrize("values", [[1.0, -1.0], [0.0, 1, 5], [3.0, 1, 4, 1, 5, 9, 2, 6, 5, 3]])
def test_the_bootstrap_draws_seeds_as_students_t_has_it(values):
    """Seeds that are better or worse by so much on all examples alike."""
    zero, *seeds = (scoring.table_of([record([x], [0.0], [0], [False]) for _ in range(9)]) for x in [0.0, *values])
    d, low, high = scoring.paired(list("aabbccddd"), seeds, [zero] * len(seeds))["logp"]
    t = {2: 12.706, 3: 4.303, 10: 2.262}[len(values)]
    assert d == pytest.approx(np.mean(values))
    near = 0.3 if len(values) == 2 else 0.1  # samples of two have three means only
    assert high - low == pytest.approx(2 * t * np.std(values, ddof=1) / len(values) ** 0.5, rel=near)
    assert scoring.paired(list("aabbccddd"), seeds, seeds)["logp"] == (0, 0, 0)  # paired


def test_students_t_of_many_values():
    for n, t in [(10, 2.262), (11, 2.228), (16, 2.131), (31, 2.042), (10**6, 1.96)]:
        assert scoring.t95(n) == pytest.approx(t, rel=0.01)


@pytest.mark.parametrize("n", [3, 5])
def test_intervals_of_few_seeds_hold_the_truth(n):
    """95 % of them; of the values drawn as they are, without widening, far fewer."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(400, n))
    share = {}
    for how in [scoring.drawn, scoring.drawn_seeds]:
        low, high = np.quantile(values @ how(n, rng).T, [0.025, 0.975], axis=1)
        share[how] = np.mean((low < 0) & (0 < high))
    assert share[scoring.drawn] < 0.87 and 0.93 < share[scoring.drawn_seeds] < 0.98


def test_token_scores_equal_a_full_forward(trained, world):
    model, tokenizer, _ = checkpoint.load(trained / "out/perce")
    examples = [encode_example(row, tokenizer, 1100) for row in read_examples(world / "test.jsonl")[:3]]
    for e, scores in zip(examples, scoring.score_tokens(model, examples)):
        for name, prompt in [("logp", e.prompt), ("logp_plain", e.plain_prompt)]:
            logp = model(torch.tensor([prompt + e.response]))[0].log_softmax(-1)
            slow = [logp[len(prompt) + i - 1, token].item() for i, token in enumerate(e.response)]
            assert scores[name].tolist() == pytest.approx(slow, abs=1e-4)
            if name == "logp":
                likeliest = logp[len(prompt) - 1 : -1].argmax(-1).tolist()
                assert scores["hit"].tolist() == [a == b for a, b in zip(likeliest, e.response)]
        assert scores["pir"].tolist() == pytest.approx((scores["logp"] - scores["logp_plain"]).tolist())
