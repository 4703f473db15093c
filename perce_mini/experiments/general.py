"""What else the model of a run does: turns of chats, and questions about passages."""

from pathlib import Path

import numpy as np

from perce_mini.dataset import encode_rows
from perce_mini.experiments.drop_metric import drop_score
from perce_mini.experiments.records import FIRST, table, with_more
from perce_mini.experiments.runs import Run, load
from perce_mini.experiments.suite import base_row, make_base
from perce_mini.percontrast import LOSSES
from perce_mini.scoring import drawn, drawn_seeds, evaluate

BASE, BASE_STEPS = Path("out/general"), 2000
N_CHATS, N_QUESTIONS = 60, 300


def base_folder():
    """The folder of a base model that has also read chats and questions."""
    from data.personas.general import general_rows  # importable in the project's folder only

    return make_base(BASE, lambda: general_rows("general"), BASE_STEPS)


def replies(folder, rows, top_k):
    """What the model of a folder answers to every row, greedily."""
    model, tokenizer, _ = load(folder)
    examples = encode_rows(rows, tokenizer, model.config.block_size, top_k)
    return [record["prediction"] for record in evaluate(model, tokenizer, examples, 40, 0, desc="answer")]


def judge_chats(folder):
    """{"turn k": the judge's score, averaged over chats}.

    1 + 4 x the share of what the user's own answer shows of the user that the model's answer shows too. The judge of
    the paper is a language model.
    """
    from data.personas.general import chats

    rows, scores = chats("chats", N_CHATS), {f"turn {k}": [] for k in range(1, 11)}
    for row, text in zip(rows, replies(folder, rows, top_k=9)):
        shown = [row["response"][start:end] in text for start, end in row["personal"]]
        scores[f"turn {len(row['profile']) + 1}"].append(1 + 4 * np.mean(shown))
    return {turn: float(np.mean(found)) for turn, found in scores.items()}


def answer_questions(folder):
    """(questions, 2): DROP's exact match and F1, over passages that no model has read."""
    from data.personas.general import questions

    rows = questions("questions", N_QUESTIONS)
    pairs = zip(rows, replies(folder, rows, top_k=0))
    return np.array([drop_score(text, [{"spans": [row["response"]]}]) for row, text in pairs])


def interval(differences):
    """(mean, low, high) of differences (seeds, questions): bootstrap 95 % interval over both."""
    (n_seeds, n), rng = differences.shape, np.random.default_rng(0)
    means = np.einsum("dk,dq,kq->d", drawn_seeds(n_seeds, rng), drawn(n, rng), differences)
    return float(differences.mean()), *np.quantile(means, [0.025, 0.975]).tolist()


# --------------------------------------------------------------------------------------- the experiments


def general_runs(suite, losses):
    """{loss: runs}: the default fine-tuning of that base model."""
    start = base_folder()
    return suite.repeat({loss: Run(loss, base=start) for loss in losses}, 3)


def measure_dialogue(suite):
    """From writing to chats."""
    groups = general_runs(suite, ["ce", "perce"])
    suite.figures(groups, "dialogue")
    rows = {"base": [judge_chats(BASE)]}
    rows |= {loss: [judge_chats(run.folder) for run in runs] for loss, runs in groups.items()}
    caption = (
        f"The judge's score at every turn of {N_CHATS} chats, where the user's own answer shows something of them."
    )
    return {"tables": [table(caption, rows["base"][0], rows, digits=2)]}


def measure_ability(suite):
    """Is general ability kept?"""
    groups, columns = general_runs(suite, LOSSES), ["exact match", "F1", "F1 minus CE"]
    learned = suite.figures(groups, "ability") | {"base": base_row(Run(base=str(BASE)))}
    answers = {loss: [answer_questions(run.folder) for run in runs] for loss, runs in groups.items()}
    answers["base"] = [answer_questions(BASE)]
    f1, rows = {name: np.array([one[:, 1] for one in some]) for name, some in answers.items()}, {}
    for name in ["base", *groups]:
        row = [dict(zip(columns, one.mean(axis=0).tolist())) for one in answers[name]]
        minus = {} if name == "ce" else {columns[2]: interval(f1[name] - f1["ce"])}
        rows[name] = with_more([a | b for a, b in zip(learned[name], row)], minus)
    caption = f"{N_QUESTIONS} questions about passages. Differences: bootstrap over questions and seeds."
    return {"tables": [table(caption, [*FIRST[:2], *columns], rows)]}
