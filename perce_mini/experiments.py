"""The paper in miniature: `python -m perce_mini.experiments [NAME ...] [--seeds N] [--jobs N]`, from the project's folder.

An experiment is a table of cells (cells.py): what varies, and what is measured. What it finds lands in
data/results/NAME.json, and report.py says it in the README (`--readme`) and on a page (`--page FILE`). Whatever is
chosen (a learning rate, a threshold) is chosen on validation users.
"""

import json
import platform
import subprocess
import time
from pathlib import Path

import numpy as np
import tiktoken
import torch
from tqdm import tqdm

from data.personas.exact import style_of, write_again
from data.personas.prepare import Dice
from perce_mini import bench, checkpoint, cli, report, scoring
from perce_mini.cells import DEFAULT, RATES, SCORED, Suite, folder_of, load, make_start, prepare, rows_of
from perce_mini.dataset import encode_rows, evenly
from perce_mini.detectors import detection
from perce_mini.drop import drop_score
from perce_mini.rouge import rouge_l

RESULTS = Path("data/results")


def pooled(cells):
    """Sums over cells of the same examples, (examples, metrics, 2)."""
    return sum(np.load(folder_of(cell) / "test.npy") for cell in cells)


def versus(cells, reference):
    """{metric: (difference, low, high)}: paired bootstrap over users, every example's figures averaged over the seeds."""
    users = [row["user"] for row in evenly(rows_of("test"), SCORED)]
    return scoring.paired(users, pooled(cells), pooled(reference))


def cost_table(suite):
    """A step of each loss: time, tokens/s and memory against CE's, beside the floor that arithmetic allows."""
    return {"figures": bench.measure(cli.pick_device("auto"))}


def needed(name, suite):
    """What another experiment has found; it is run first where it was not."""
    if not (RESULTS / f"{name}.json").exists():
        record(name, suite)
    return json.loads((RESULTS / f"{name}.json").read_text())


KINDS = {"ce": {"loss": "ce"}, "lossce": {"loss": "lossce"}, "entce": {"loss": "entce"}, "perce": {}, "oracle": {"weigh": "exact"}}


def best_rates(suite, kinds, desc):
    """The rate of RATES with the best validation ROUGE-L, for each of {name: cell}."""
    found = suite.table({name: [cell | {"lr": lr} for lr in RATES] for name, cell in kinds.items()}, desc, split="val")
    rates = {name: {lr: one["all"]["rouge_l"] for lr, one in zip(RATES, some)} for name, some in found.items()}
    return {"rates": rates, "best": {name: max(RATES, key=by_rate.get) for name, by_rate in rates.items()}}


def rates_table(suite):
    """The learning rate of each loss, and of weights from the exact answer: the best validation ROUGE-L."""
    return best_rates(suite, KINDS, "rates")


def main_table(suite):
    """CE, LossCE, EntCE, PerCE and an oracle, each at its own best learning rate, and PerCE at CE's wall time."""
    best, cost = needed("rates", suite)["best"], needed("cost", suite)["figures"]["perce_over_ce"]
    cells = {name: [cell | {"lr": best[name], "seed": seed} for seed in range(suite.seeds)] for name, cell in KINDS.items()}
    cells["perce, CE's time"] = [cell | {"steps": round(DEFAULT["steps"] / cost)} for cell in cells["perce"]]
    return {"best": best, "base": suite.base(), "figures": suite.table(cells, "main"),
            "minus_ce": {name: versus(of_kind, cells["ce"]) for name, of_kind in cells.items() if name != "ce"}}  # fmt: skip


WHO = {"a stranger": (False, False), "the user": (True, False), "the user, true to every habit": (True, True)}


def again_table(suite):
    """How high can ROUGE-L go? The same queries answered again: by a stranger, by the user, and by the user true to every habit."""
    dice, rows = Dice("again"), evenly(rows_of("test"), SCORED)
    scores = {who: {} for who in WHO}
    for row in tqdm(rows, desc="again", unit="row", dynamic_ncols=True):
        style = style_of(row)
        for who, (same_style, faithful) in WHO.items():
            texts = write_again(row, style if same_style else {}, dice, 20, faithful)
            found = float(np.mean([rouge_l(text, row["response"]).fmeasure for text in texts]))
            for task in ["all", row["task"]]:
                scores[who].setdefault(task, []).append(found)
    return {"figures": {who: {task: float(np.mean(found)) for task, found in by_task.items()} for who, by_task in scores.items()}}


def clip_table(suite):
    """Floors and caps, LongCE's ratio, and weights of mean one: which tokens, and how big a step?"""
    cells = [{"clip_min": low, "clip_max": high} for low in [-1.0, 0.0, 0.2, 0.5, 0.8, 1.0] for high in [2.0, 5.0, 8.0]]
    cells += [{"weigh": "longce"}, {"weigh": "mean one"}]
    return {"cells": cells, "figures": suite.run(cells, desc="clip")}


def lr_table(suite):
    """A grid of learning rates up to collapse."""
    rates = [5e-4, *RATES, 1.6e-2, 3.2e-2, 6.4e-2]
    return {"rates": rates, "figures": suite.table({loss: [{"loss": loss, "lr": lr} for lr in rates] for loss in ["ce", "perce"]}, "lr", split="val")}


def transfer_table(suite):
    """Train on one task, test on each; shortly and at a low rate, since a long training forgets how the other tasks go."""
    tasks, gentle = ["abstract", "review", "topic"], {"lr": 1e-3, "steps": 60}
    cells = {(loss, task): [{"loss": loss, "task": task, "seed": seed} | gentle for seed in suite.few(3)] for loss in ["ce", "perce"] for task in tasks}
    figures = suite.table(cells, "transfer")
    return {"setting": gentle, "base": suite.base(), "figures": {loss: {task: figures[loss, task] for task in tasks} for loss in ["ce", "perce"]}}


def curve_table(suite):
    """Along training, from few examples (many epochs) and from many."""
    cells = {(loss, n): [{"loss": loss, "examples": n, "seed": seed} for seed in suite.few(1)] for n in [125, 500, 2000, 0] for loss in ["ce", "perce"]}
    figures = suite.table(cells, "curve", watch=True)
    curves = {key: [json.loads((folder_of(cell) / "curve.json").read_text()) for cell in some] for key, some in cells.items()}
    return {"curves": [{"loss": loss, "examples": n or len(rows_of("train")), "curves": curves[loss, n], "figures": figures[loss, n]} for loss, n in cells]}


def bootstrap_table(suite):
    """Where the weights come from, and what the model starts from."""
    make_start("strong")
    kinds = {"CE": {"loss": "ce"}, "PerCE, online": {}, "frozen start": {"weigh": "frozen"}, "copy every 50 steps": {"weigh": "stale"},
             "warm-up": {"weigh": "warm-up"}, "exact answer": {"weigh": "exact"}}  # fmt: skip
    starts = ["scratch", "base", "strong"]
    figures = suite.table({(start, name): [cell | {"start": start, "seed": seed} for seed in suite.few(1)] for start in starts for name, cell in kinds.items()}, "bootstrap")
    return {"figures": {start: {name: figures[start, name] for name in kinds} for start in starts}}


def strong_table(suite):
    """CE, PerCE and the exact answer from a base model that read more texts by one author, each at its own best learning rate."""
    make_start("strong")
    kinds = {name: KINDS[name] | {"start": "strong"} for name in ["ce", "perce", "oracle"]}
    chosen = best_rates(suite, kinds, "strong, rates")
    cells = {name: [cell | {"lr": chosen["best"][name], "seed": seed} for seed in suite.few(3)] for name, cell in kinds.items()}
    return {**chosen, "base": suite.base("strong"), "figures": suite.table(cells, "strong"),
            "minus_ce": {name: versus(cells[name], cells["ce"]) for name in ["perce", "oracle"]}}  # fmt: skip


GENERAL = {"start": "general", "lr": 1e-3}  # a low rate, so that something of chats and questions may be left


def dialogue_table(suite):
    """Trained on writing, tested in ten-turn chats of other users; an exact judge gives 1 to 5 for what is shown of the user."""
    make_start("general")
    cells = {loss: [GENERAL | {"loss": loss, "seed": seed} for seed in suite.few(3)] for loss in ["ce", "perce"]}
    suite.table(cells, "dialogue")
    return {"setting": GENERAL, "turns": {"base": [judged(Path("out/general"))]} | {loss: [judged(folder_of(cell)) for cell in of_loss] for loss, of_loss in cells.items()}}


def replies(model, tokenizer, rows, top_k):
    """What the model answers to every row, greedily."""
    texts = []
    for i in range(0, len(rows), 50):
        examples = encode_rows(rows[i : i + 50], tokenizer, model.config.block_size, top_k)
        texts += map(tokenizer.decode, model.generate([e.prompt for e in examples], 40, tokenizer.end))
    return texts


def judged(folder):
    """The judge's score at every turn k, over all conversations: 1 + 4 x the share of what the preferred answer shows of the user
    that the model's answer shows too. The turns before are the profile, with the answers that were chosen."""
    rows = []
    for n, conversation in enumerate(json.loads(Path("out/general-data/conversations.json").read_text())):
        turns = [{"query": turn["user"], "response": turn["assistant"][turn["chosen"]], "personal": turn["personal"]} for turn in conversation["conversations"]]
        rows += [{"user": f"chat-{n}", "task": "turn", **turn, "profile": turns[:k]} for k, turn in enumerate(turns)]
    model, tokenizer, _ = load(folder)
    shown = [np.mean([row["response"][start:end] in text for start, end in row["personal"]]) for row, text in zip(rows, replies(model, tokenizer, rows, 9))]
    return [1 + 4 * float(np.mean(shown[k::10])) for k in range(10)]


def ability_table(suite):
    """Is general ability kept? Questions about passages, before and after fine-tuning with each loss."""
    make_start("general")
    cells = {loss: [GENERAL | {"loss": loss, "seed": seed} for seed in suite.few(3)] for loss in ["ce", "lossce", "entce", "perce"]}
    suite.table(cells, "ability")
    return {"setting": GENERAL, "answers": {"base": [answered(Path("out/general"))]} | {loss: [answered(folder_of(cell)) for cell in of_loss] for loss, of_loss in cells.items()}}


def answered(folder):
    """DROP's exact match and F1 by kind of answer, over passages that the base model never read."""
    passages = json.loads(Path("out/general-data/passages.json").read_text())
    asked = [(passage["passage"], qa) for passage in passages.values() for qa in passage["qa_pairs"]]
    rows = [{"user": "", "task": "question", "query": f"{text} {qa['question']}", "response": "?", "profile": []} for text, qa in asked]
    model, tokenizer, _ = load(folder)
    found = {"all": [], "number": [], "span": [], "date": []}
    for (_, qa), text in zip(asked, replies(model, tokenizer, rows, 0)):
        score = drop_score(text, [qa["answer"]])
        kind = "number" if qa["answer"]["number"] else "span" if qa["answer"]["spans"] else "date"
        found["all"].append(score)
        found[kind].append(score)
    return {kind: dict(zip(["exact match", "f1"], np.mean(scores, axis=0).tolist())) for kind, scores in found.items()}


def identify_table(suite):
    """Which tokens are personal? PIR, word matching, loss, entropy and the exact PIR as detectors."""
    best = needed("main", suite)["best"]
    folders = {"base": [Path("out/base")]} | {loss: [folder_of({"loss": loss, "lr": best[loss], "seed": seed}) for seed in range(suite.seeds)]
                                              for loss in ["ce", "perce"]}  # fmt: skip
    return {name: [detection(folder) for folder in tqdm(of_kind, desc=f"identify, {name}", unit="run")] for name, of_kind in folders.items()}


def contrast_table(suite):
    """Nobody's profile or a stranger's in the plain view: which finds personal tokens better, and which trains better?"""
    stranger = {"contrast": "stranger"}
    by_rate = {lr: one["all"]["rouge_l"] for lr, one in zip(RATES, suite.run([stranger | {"lr": lr} for lr in RATES], "val", desc="rates"))}
    best = {"none": needed("rates", suite)["best"]["perce"], "stranger": max(RATES, key=by_rate.get)}
    cells = {contrast: [{"contrast": contrast, "lr": lr, "seed": seed} for seed in suite.few(3)] for contrast, lr in best.items()}
    figures = suite.table(cells, "contrast")
    folders = {"base": [Path("out/base")]} | {contrast: [folder_of(cell) for cell in of_kind] for contrast, of_kind in cells.items()}
    found = {name: {contrast: [detection(folder, contrast) for folder in of_kind] for contrast in best} for name, of_kind in folders.items()}
    keep = lambda one: one["detectors"]["PIR"] | {"f1 at 0.8": one["at_0.8"]["f1"], "precision at 0.8": one["at_0.8"]["precision"], "correlation": one["correlation"]}
    return {"best": best, "figures": figures, "minus_none": versus(cells["stranger"], cells["none"]),
            "detection": {name: {contrast: list(map(keep, ones)) for contrast, ones in by.items()} for name, by in found.items()}}  # fmt: skip


EXPERIMENTS = {"cost": cost_table, "rates": rates_table, "main": main_table, "again": again_table, "identify": identify_table, "lr": lr_table, "clip": clip_table, "curve": curve_table,
               "bootstrap": bootstrap_table, "strong": strong_table, "transfer": transfer_table, "contrast": contrast_table, "dialogue": dialogue_table, "ability": ability_table}  # fmt: skip


def record(name, suite):
    """Run an experiment and write data/results/NAME.json."""
    start = time.perf_counter()
    results = {"experiment": name, "says": EXPERIMENTS[name].__doc__, "seeds": suite.seeds,
               "default": DEFAULT, "scored": SCORED, **EXPERIMENTS[name](suite),
               "seconds": round(time.perf_counter() - start), "jobs": suite.jobs,
               "versions": {"python": platform.python_version(), "torch": torch.__version__, "tiktoken": tiktoken.__version__},
               "commit": subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()}  # fmt: skip
    path = RESULTS / f"{name}.json"
    checkpoint.replace_file(path, lambda new: Path(new).write_text(json.dumps(results, indent=1) + "\n"))
    print(f"wrote {path}")


def main():
    p = cli.Parser(prog="python -m perce_mini.experiments", description=__doc__)
    p.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(EXPERIMENTS)} (default all)")
    p.add_argument("--seeds", type=int, default=5, help="seeds of every cell that is repeated (default 5)")
    p.add_argument("--jobs", type=int, default=2, help="cells at a time, each on one core (default 2)")
    p.add_argument("--readme", action="store_true", help="only rewrite the README's sections from the recorded files")
    p.add_argument("--page", type=Path, metavar="FILE", help="only write a page of all recorded tables and figures (HTML)")
    args = p.parse_args()
    if args.seeds < 1 or args.jobs < 1:
        p.error("--seeds and --jobs must be above 0")
    for name in args.names:
        if name not in EXPERIMENTS:
            p.error(f"no experiment {name!r}; there are {', '.join(EXPERIMENTS)}")
    if args.page:
        return report.write_page(args.page)
    if not args.readme:
        suite = Suite(args.seeds, args.jobs)
        prepare(args.jobs)
        for name in args.names or EXPERIMENTS:
            record(name, suite)
    report.write_readme()


if __name__ == "__main__":
    cli.run(main)
