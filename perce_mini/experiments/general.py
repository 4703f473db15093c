"""What else a fine-tuned model can do: turns of chats, and questions about passages."""

from pathlib import Path

import numpy as np

from perce_mini.dataset import encode_rows
from perce_mini.experiments.drop_metric import drop_score
from perce_mini.experiments.records import table, with_more
from perce_mini.experiments.rows import make_base
from perce_mini.experiments.runs import Run, load
from perce_mini.experiments.statistics import paired
from perce_mini.experiments.suite import BOTH, LOSSES, PAIRED
from perce_mini.runtime.files import write_jsonl_atomic
from perce_mini.scoring import evaluate

BASE_STEPS, N_CHATS, N_QUESTIONS = 2000, 60, 300


def general_runs(suite, losses):
    """{name: runs}: a base model that also read chats and questions, and runs that start there."""
    from data.personas.general import general_rows  # importable in the project's folder only

    rows = Path("out/worlds/general/base.jsonl")
    if not rows.exists():
        write_jsonl_atomic(rows, general_rows("general"))
    start = make_base("general", rows.parent, BASE_STEPS)
    groups = suite.repeat({loss: Run(loss, **start) for loss in losses}, 3)
    return {"base": [Run(steps=0, **start)]} | groups


def replies(run, rows, top_k):
    """What the model of a run answers to every row, greedily."""
    model, tokenizer, _ = load(run)
    examples = encode_rows(rows, tokenizer, model.config.block_size, top_k)
    return [record["prediction"] for record in evaluate(model, tokenizer, examples, 40, 0)]


def judge_chats(run):
    """{"turn k": score from 1 to 5, averaged over chats}. The paper asks a language model to judge.

    Ours counts: 1 + 4 x the share of the personal words of the user's own answer that the model's
    answer holds too.
    """
    from data.personas.general import chats

    rows, scores = chats("chats", N_CHATS), {f"turn {k}": [] for k in range(1, 11)}
    for row, text in zip(rows, replies(run, rows, top_k=9)):
        hits = [row["response"][start:end] in text for start, end in row["personal"]]
        scores[f"turn {len(row['profile']) + 1}"].append(1 + 4 * np.mean(hits))
    return {turn: float(np.mean(values)) for turn, values in scores.items()}


def measure_dialogue(suite):
    """From writing to chats."""
    groups = general_runs(suite, BOTH)
    suite.figures(groups, "dialogue")
    rows = {name: [judge_chats(run) for run in runs] for name, runs in groups.items()}
    caption = f"The judge's score in {N_CHATS} chats, at the turns where the user's own answer"
    return {"tables": [table(f"{caption} is personal.", rows["base"][0], rows, digits=2)]}


def answer_questions(run):
    """(questions, 2): DROP's exact match and F1, for passages that no model has read."""
    from data.personas.general import questions

    rows = questions("questions", N_QUESTIONS)
    texts = replies(run, rows, top_k=0)
    golds = [[{"spans": [row["response"]]}] for row in rows]
    return np.array([drop_score(text, gold) for text, gold in zip(texts, golds)])


def measure_ability(suite):
    """Is general ability kept?"""
    groups, minus_ce = general_runs(suite, LOSSES), "F1 minus CE"
    rows, f1_tallies = suite.figures(groups, "ability"), {}
    for name, runs in groups.items():
        answers = [answer_questions(run) for run in runs]
        for row, (exact, f1) in zip(rows[name], np.mean(answers, axis=1).tolist()):
            row |= {"exact match": exact, "F1": f1}
        ones = np.ones((N_QUESTIONS, 1))
        f1_tallies[name] = [np.stack([one[:, 1:], ones], axis=-1) for one in answers]
    for name in set(groups) - {"ce"}:
        n = len(groups["ce"]) // len(groups[name])  # the base model is the same for all seeds
        (change,) = paired(range(N_QUESTIONS), f1_tallies[name] * n, f1_tallies["ce"])
        rows[name] = with_more(rows[name], {minus_ce: change})
    columns = ["rouge_l", "personal_accuracy", "exact match", "F1", minus_ce]
    caption = f"{N_QUESTIONS} questions about passages. Differences: {PAIRED}."
    return {"tables": [table(caption.replace("users", "questions"), columns, rows)]}
