"""What else the model of a run does: turns of chats, and questions about passages (data of data.personas.general)."""

import json
from pathlib import Path

import numpy as np

from perce_mini.dataset import encode_rows
from perce_mini.experiments.drop_metric import drop_score
from perce_mini.experiments.records import FIRST, chart, of_seeds, table, with_more
from perce_mini.experiments.rows import WORLDS
from perce_mini.experiments.runs import Run, load
from perce_mini.experiments.suite import SHORT, base_row, make_base, make_world
from perce_mini.percontrast import LOSSES
from perce_mini.scoring import evaluate

WORLD, LONG = "general", 300  # of out/worlds, and steps of the longer fine-tuning


def replies(model, tokenizer, rows, top_k):
    """What the model answers to every row, greedily."""
    examples = encode_rows(rows, tokenizer, model.config.block_size, top_k)
    return [record["prediction"] for record in evaluate(model, tokenizer, examples, 40, 0, desc="answer")]


def judge_chats(folder):
    """{"turn k": the judge's score, over all conversations}.

    1 + 4 x the share of what the preferred answer shows of the user that the model's answer shows too. The turns
    before are the profile, with the answers that were chosen.
    """
    rows = []
    for n, conversation in enumerate(json.loads((WORLDS / WORLD / "conversations.json").read_text(encoding="utf-8"))):
        turns = [
            {"query": turn["user"], "response": turn["assistant"][turn["chosen"]], "personal": turn["personal"]}
            for turn in conversation["conversations"]
        ]
        rows += [{"user": f"chat-{n}", "task": "turn", **turn, "profile": turns[:k]} for k, turn in enumerate(turns)]
    model, tokenizer, _ = load(folder)
    scores = {}
    for row, text in zip(rows, replies(model, tokenizer, rows, top_k=9)):
        shown = [row["response"][start:end] in text for start, end in row["personal"]]
        scores.setdefault(f"turn {len(row['profile']) + 1}", []).append(1 + 4 * np.mean(shown))
    return {turn: float(np.mean(found)) for turn, found in scores.items()}


def answer_questions(folder):
    """{kind of answer, or "all": (questions, 2)}: DROP's exact match and F1, over passages that no model has read."""
    passages = json.loads((WORLDS / WORLD / "passages.json").read_text(encoding="utf-8"))
    asked = [(passage["passage"], qa) for passage in passages.values() for qa in passage["qa_pairs"]]
    rows = [
        {"user": "", "task": "question", "query": f"{text} {qa['question']}", "response": "?", "profile": []}
        for text, qa in asked
    ]
    model, tokenizer, _ = load(folder)
    found = {"all": [], "number": [], "span": [], "date": []}
    for (_, qa), text in zip(asked, replies(model, tokenizer, rows, top_k=0)):
        kind = "number" if qa["answer"]["number"] else "span" if qa["answer"]["spans"] else "date"
        for group in ["all", kind]:
            found[group].append(drop_score(text, [qa["answer"]]))
    return {kind: np.array(scores) for kind, scores in found.items()}


def averages(answers):
    """{"exact match, all": ..., "F1, all": ..., "F1, number": ..., ...} of what `answer_questions` returns."""
    f1 = {f"F1, {kind}": float(scores[:, 1].mean()) for kind, scores in answers.items()}
    return {"exact match, all": float(answers["all"][:, 0].mean())} | f1


def interval(differences, draws=2000):
    """(mean, low, high) of a difference per question: bootstrap 95 % interval over the questions."""
    n = len(differences)
    drawn = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=draws) @ differences / n
    return float(differences.mean()), *np.quantile(drawn, [0.025, 0.975]).tolist()


# --------------------------------------------------------------------------------------- the experiments


def general_runs(suite, losses):
    """{(steps, loss): runs}: a short and a long fine-tuning of the base model that also read chats and questions."""
    make_world(WORLD, script="data/personas/general.py")
    base = make_base(WORLD, WORLDS / WORLD, "--base-steps", 2400, "--vocab-size", 2048, "--block-size", 512)
    same = {"lr": SHORT["lr"], "world": WORLD, "base": base}
    kinds = {(n, loss): Run(loss, steps=n, **same) for n in [SHORT["steps"], LONG] for loss in losses}
    return suite.repeat(kinds, 3)


def by_turn(row):
    return [[k, *of_seeds(row, turn)] for k, turn in enumerate(row[0], 1)]


def measure_dialogue(suite):
    """From writing to chats."""
    groups = general_runs(suite, ["ce", "perce"])
    suite.figures(groups, "dialogue")
    rows, panels = {"0 | base": [judge_chats(Path("out", WORLD))]}, {}
    for (n, loss), runs in groups.items():
        rows[f"{n} | {loss}"] = [judge_chats(run.folder) for run in runs]
        panels.setdefault(f"{n} steps", {"base": by_turn(rows["0 | base"])})[loss] = by_turn(rows[f"{n} | {loss}"])
    caption = "The judge's score at every turn of 60 chats with other users."
    tables = [table(caption, rows["0 | base"][0], rows, "steps | loss", digits=2)]
    return {"tables": tables, "charts": [chart("score", "turn", "score, 1 to 5", panels)]}


def measure_ability(suite):
    """Is general ability kept?"""
    groups = general_runs(suite, LOSSES)
    learned = suite.figures(groups, "ability")
    answers = {key: [answer_questions(run.folder) for run in runs] for key, runs in groups.items()}
    f1 = {key: np.mean([one["all"][:, 1] for one in some], axis=0) for key, some in answers.items()}
    base = averages(answer_questions(Path("out", WORLD)))
    rows = {"0 | base": [base_row(groups[LONG, "ce"][0])[0] | base]}
    for n, loss in groups:
        row = [figures | averages(found) for figures, found in zip(learned[n, loss], answers[n, loss])]
        minus = {} if loss == "ce" else {"F1, all, minus CE": interval(f1[n, loss] - f1[n, "ce"])}
        rows[f"{n} | {loss}"] = with_more(row, minus)
    caption = "300 questions about passages. Differences to CE: bootstrap over questions, each averaged over the seeds."
    return {"tables": [table(caption, [*FIRST[:2], *base, "F1, all, minus CE"], rows, "steps | loss")]}
