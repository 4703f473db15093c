"""What else a fine-tuned model can do: take part in chats, and answer questions about passages."""

from pathlib import Path

import numpy as np

from data.personas.general import chats, general_rows, questions
from data.personas.prepare import BASE
from perce_mini.dataset import encode_rows
from perce_mini.experiments.records import table
from perce_mini.experiments.runs import Run, load, train
from perce_mini.experiments.statistics import paired
from perce_mini.experiments.suite import BOTH
from perce_mini.rouge import words
from perce_mini.runtime.files import write_jsonl_atomic
from perce_mini.scoring import evaluate

N_ROWS = BASE  # as many as in the corpus of the default base model
N_CHATS, N_QUESTIONS = 60, 300


def general_runs(suite):
    """Return {name: runs}: CE and PerCE runs, and the base model that they start from.

    This base model was also trained on chats and questions.

    The runs use a quarter of the default learning rate. With the default, which suits the texts
    best, a model this small forgets everything else with any loss, and nothing is left to compare.
    """
    rows = Path("out/worlds/general/train.jsonl")
    if not rows.exists():
        write_jsonl_atomic(rows, general_rows("general", N_ROWS))
    start = Run("ce", lr=1e-3, steps=1000, batch_size=16, data=str(rows.parent))
    if not (start.folder / "done").exists():
        train(start)
    base = str(start.folder)
    methods = {loss: Run(loss, lr=Run.lr / 4, base=base) for loss in BOTH}
    groups = suite.repeat(methods, 3)
    return {"base": [Run(steps=0, base=base)]} | groups


def replies(run, rows, top_k):
    """Return the greedy response of a run's model to every row."""
    model, tokenizer, _ = load(run)
    examples = encode_rows(rows, tokenizer, model.config.block_size, top_k)
    return [record["prediction"] for record in evaluate(model, tokenizer, examples, 40, 0)]


def judge_chats(run):
    """Score the model's answers in chats from 1 to 5: {"turn k": mean over chats, "all": mean}.

    The score is 1 + 4 * the share of the personal words in the user's own answer that also occur in
    the model's answer. The paper uses a language model as the judge.
    """
    rows, scores = chats("chats", N_CHATS), {f"turn {k}": [] for k in range(1, 11)}
    for row, text in zip(rows, replies(run, rows, top_k=9)):
        hits = [row["response"][start:end] in text for start, end in row["personal"]]
        scores[f"turn {len(row['profile']) + 1}"].append(1 + 4 * np.mean(hits))
    scores["all"] = [score for values in scores.values() for score in values]
    return {turn: float(np.mean(values)) for turn, values in scores.items()}


def measure_dialogue(suite):
    """Does the gain carry over to chats?"""
    groups = general_runs(suite)
    suite.run_all(groups, "dialogue")  # trains them
    rows = {name: [judge_chats(run) for run in runs] for name, runs in groups.items()}
    caption = f"The judge's score in {N_CHATS} chats, only for turns in which the user's own answer"
    caption += " contains personal words. Turn k is the k-th answer of a chat."
    return {"tables": [table(caption, rows["base"][0], rows, digits=2)]}


def answer_questions(run):
    """Return which answers are right: bools (questions,). Case and punctuation are ignored."""
    rows = questions("questions", N_QUESTIONS)
    texts = replies(run, rows, top_k=0)
    return np.array([words(text) == words(row["response"]) for text, row in zip(texts, rows)])


def measure_ability(suite):
    """Does the model keep its general abilities?"""
    groups, minus_ce = general_runs(suite), "right answers minus CE"
    rows, tallies = suite.run_all(groups, "ability"), {}
    for name, runs in groups.items():
        answers = [answer_questions(run) for run in runs]
        for row, right in zip(rows[name], answers):
            row["right answers"] = float(right.mean())
        tallies[name] = [np.stack([x, np.ones(len(x))], axis=-1)[:, None] for x in answers]
    for name in set(groups) - {"ce"}:
        n = len(groups["ce"]) // len(groups[name])  # the base model is the same for all seeds
        (change,) = paired(range(N_QUESTIONS), tallies[name] * n, tallies["ce"])
        rows[name][0][minus_ce] = change
    columns = ["rouge_l", "personal_accuracy", "right answers", minus_ce]
    caption = f"{N_QUESTIONS} questions about passages. Differences: paired bootstrap over"
    caption += " questions and seeds."
    return {"tables": [table(caption, columns, rows)]}
