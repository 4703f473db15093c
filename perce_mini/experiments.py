"""The paper in miniature: `python -m perce_mini.experiments [NAME ...] [--seeds N] [--jobs N]`.

An experiment is a table of cells (cells.py): what varies, and what is measured. What it finds lands in
data/results/NAME.json, and the README (`--readme`, report.py) and a page (`--page FILE`, page.py) say it. Whatever is
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
from perce_mini import bench, checkpoint, cli, page, report, scoring
from perce_mini.cells import DEFAULT, RATES, SCORED, Suite, folder_of, load, make_start, prepare, rows_of
from perce_mini.dataset import encode_rows, evenly
from perce_mini.detectors import detection
from perce_mini.drop import drop_score
from perce_mini.rouge import rouge_l

RESULTS = Path("data/results")
GENTLE = {"lr": 1e-3, "steps": 60}  # what else a model knew is mostly still there after such a training


def pooled(cells, split):
    """Sums over cells of the same examples, (examples, metrics, 2)."""
    return sum(np.load(folder_of(cell) / f"{split}.npy") for cell in cells)


def versus(cells, reference, split="test"):
    """{metric: (difference, low, high)}: paired bootstrap over users, every example averaged over the seeds."""
    users = [row["user"] for row in evenly(rows_of(split), SCORED)]
    return scoring.paired(users, pooled(cells, split), pooled(reference, split))


def cost_table(suite):
    """A step of each loss: time, tokens/s and memory against CE's, beside the floor that arithmetic allows."""
    return {"figures": bench.measure(cli.pick_device("auto"))}


def needed(name, suite):
    """What another experiment has found; it is run first where it was not."""
    if not (RESULTS / f"{name}.json").exists():
        record(name, suite)
    return json.loads((RESULTS / f"{name}.json").read_text())


LOSSES = {loss: {"loss": loss} for loss in ["ce", "lossce", "entce", "perce"]}
KINDS = LOSSES | {"oracle": {"weigh": "exact"}}


def with_seeds(cell, seeds):
    return [cell | {"seed": seed} for seed in seeds]


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
    cells = {name: with_seeds(cell | {"lr": best[name]}, range(suite.seeds)) for name, cell in KINDS.items()}
    cells["perce, CE's time"] = [cell | {"steps": round(DEFAULT["steps"] / cost)} for cell in cells["perce"]]
    figures = suite.table(cells, "main")
    minus_ce = {name: versus(of_kind, cells["ce"]) for name, of_kind in cells.items() if name != "ce"}
    return {"best": best, "base": suite.base(), "figures": figures, "minus_ce": minus_ce}


WHO = {"a stranger": (False, False), "the user": (True, False), "the user, true to every habit": (True, True)}


def again_table(suite):
    """How high can ROUGE-L go? The queries answered again: by strangers, by the users, by users true to every habit."""
    dice, rows = Dice("again"), evenly(rows_of("test"), SCORED)
    scores = {who: {} for who in WHO}
    for row in tqdm(rows, desc="again", unit="row", dynamic_ncols=True):
        style = style_of(row)
        for who, (same_style, faithful) in WHO.items():
            texts = write_again(row, style if same_style else {}, dice, 20, faithful)
            found = float(np.mean([rouge_l(text, row["response"]).fmeasure for text in texts]))
            for task in ["all", row["task"]]:
                scores[who].setdefault(task, []).append(found)
    average = lambda by_task: {task: float(np.mean(found)) for task, found in by_task.items()}
    return {"figures": {who: average(by_task) for who, by_task in scores.items()}}


def clip_table(suite):
    """Floors and caps, LongCE's ratio, and weights of mean one: which tokens, and how big a step?"""
    floors, caps = [-1.0, 0.0, 0.2, 0.5, 0.8, 1.0], [2.0, 5.0, 8.0]
    cells = [{"clip_min": low, "clip_max": high} for low in floors for high in caps]
    cells += [{"weigh": "longce"}, {"weigh": "mean one"}, {"loss": "ce"}]
    repeated = {folder_of(cell): with_seeds(cell, suite.few(2)) for cell in cells}
    figures = suite.table(repeated, "clip")
    minus_paper = [versus(some, repeated[folder_of({})]) for some in repeated.values()]
    # The low cap was noticed on test users; so it is set against the others on validation users, with more seeds.
    kinds = {"M 2": {"clip_max": 2.0}, "M 5": {}, "CE": {"loss": "ce"}}
    low = {name: with_seeds(cell, range(suite.seeds)) for name, cell in kinds.items()}
    found = suite.table(low, "clip, low cap", split="val")
    minus = {name: versus(low["M 2"], low[name], "val") for name in ["M 5", "CE"]}
    return {"cells": cells, "figures": list(figures.values()), "minus_paper": minus_paper,
            "low_cap": {"figures": found, "m2_minus": minus}}  # fmt: skip


def lr_table(suite):
    """A grid of learning rates up to collapse."""
    rates, losses = [5e-4, *RATES, 1.6e-2, 3.2e-2, 6.4e-2], ["ce", "perce"]
    cells = {(loss, lr): with_seeds({"loss": loss, "lr": lr}, suite.few(2)) for loss in losses for lr in rates}
    figures = suite.table(cells, "lr", split="val")
    return {"rates": rates, "figures": {loss: [figures[loss, lr] for lr in rates] for loss in losses}}


def transfer_table(suite):
    """Train on one task, test on each; shortly and at a low rate: a long training forgets how the other tasks go."""
    tasks, losses = ["abstract", "review", "topic"], ["ce", "perce"]
    cell = lambda loss, task: {"loss": loss, "task": task} | GENTLE
    cells = {(loss, task): with_seeds(cell(loss, task), suite.few(3)) for loss in losses for task in tasks}
    figures = suite.table(cells, "transfer")
    by_loss = {loss: {task: figures[loss, task] for task in tasks} for loss in losses}
    return {"setting": GENTLE, "base": suite.base(), "figures": by_loss}


def curve_table(suite):
    """Along training, from few examples (many epochs) and from many."""
    numbers, losses, all_rows = [125, 500, 2000, 0], ["ce", "perce"], len(rows_of("train"))
    cells = {(n, loss): with_seeds({"loss": loss, "examples": n}, suite.few(2)) for n in numbers for loss in losses}
    figures = suite.table(cells, "curve", watch=True)
    curves = lambda some: [json.loads((folder_of(cell) / "curve.json").read_text()) for cell in some]
    return {"curves": [{"loss": loss, "examples": n or all_rows, "curves": curves(some), "figures": figures[n, loss]}
                       for (n, loss), some in cells.items()]}  # fmt: skip


def bootstrap_table(suite):
    """Where the weights come from, and what the model starts from."""
    make_start("strong")
    kinds = {"CE": {"loss": "ce"}, "PerCE, online": {}, "frozen start": {"weigh": "frozen"},
             "copy every 50 steps": {"weigh": "stale"}, "warm-up": {"weigh": "warm-up"},
             "exact answer": {"weigh": "exact"}}  # fmt: skip
    starts = ["scratch", "base", "strong"]
    cells = {(start, name): with_seeds(cell | {"start": start}, suite.few(2))
             for start in starts for name, cell in kinds.items()}  # fmt: skip
    figures = suite.table(cells, "bootstrap")
    minus_online = {key: versus(some, cells[key[0], "PerCE, online"]) for key, some in cells.items()}
    by_start = lambda found: {start: {name: found[start, name] for name in kinds} for start in starts}
    return {"figures": by_start(figures), "minus_online": by_start(minus_online)}


def strong_table(suite):
    """CE, PerCE and the exact answer, each at its own best rate, from a base that read more texts by one author."""
    make_start("strong")
    kinds = {name: KINDS[name] | {"start": "strong"} for name in ["ce", "perce", "oracle"]}
    chosen = best_rates(suite, kinds, "strong, rates")
    cells = {name: with_seeds(cell | {"lr": chosen["best"][name]}, suite.few(3)) for name, cell in kinds.items()}
    figures = suite.table(cells, "strong")
    minus_ce = {name: versus(cells[name], cells["ce"]) for name in ["perce", "oracle"]}
    return {**chosen, "base": suite.base("strong"), "figures": figures, "minus_ce": minus_ce}


GENERAL = {"start": "general", "lr": GENTLE["lr"]}


def general_cells(suite, losses):
    """{(steps, loss): cells}: a short and a long fine-tuning of the base model that also read chats and questions."""
    make_start("general")
    cell = lambda n, loss: GENERAL | {"loss": loss, "steps": n}
    lengths = [GENTLE["steps"], DEFAULT["steps"]]
    return {(n, loss): with_seeds(cell(n, loss), suite.few(3)) for n in lengths for loss in losses}


def dialogue_table(suite):
    """Trained on writing, tested in ten-turn chats of other users; the judge gives 1 to 5 for what shows the user."""
    cells = general_cells(suite, ["ce", "perce"])
    suite.table(cells, "dialogue")
    after = [{"steps": n, "loss": loss, "turns": [judged(folder_of(cell)) for cell in some]}
             for (n, loss), some in cells.items()]  # fmt: skip
    return {"setting": GENERAL, "base": {"turns": [judged(Path("out/general"))]}, "after": after}


def replies(model, tokenizer, rows, top_k):
    """What the model answers to every row, greedily."""
    texts = []
    for i in range(0, len(rows), 50):
        examples = encode_rows(rows[i : i + 50], tokenizer, model.config.block_size, top_k)
        texts += map(tokenizer.decode, model.generate([e.prompt for e in examples], 40, tokenizer.end))
    return texts


def judged(folder):
    """The judge's score at every turn k, over all conversations.

    1 + 4 x the share of what the preferred answer shows of the user that the model's answer shows too. The turns
    before are the profile, with the answers that were chosen.
    """
    rows = []
    for n, conversation in enumerate(json.loads(Path("out/general-data/conversations.json").read_text())):
        turns = [{"query": turn["user"], "response": turn["assistant"][turn["chosen"]], "personal": turn["personal"]}
                 for turn in conversation["conversations"]]  # fmt: skip
        rows += [{"user": f"chat-{n}", "task": "turn", **turn, "profile": turns[:k]} for k, turn in enumerate(turns)]
    model, tokenizer, _ = load(folder)
    shown = [np.mean([row["response"][start:end] in text for start, end in row["personal"]])
             for row, text in zip(rows, replies(model, tokenizer, rows, 9))]  # fmt: skip
    return [1 + 4 * float(np.mean(shown[k::10])) for k in range(10)]


def ability_table(suite):
    """Is general ability kept? Questions about passages, before and after a short and a long fine-tuning."""
    cells = general_cells(suite, LOSSES)
    figures = suite.table(cells, "ability")
    scores = {key: [answered(folder_of(cell)) for cell in some] for key, some in cells.items()}
    f1 = {key: np.mean([one["all"][:, 1] for one in some], axis=0) for key, some in scores.items()}
    after = [{"steps": n, "loss": loss, "figures": figures[n, loss], "answers": list(map(by_kind, scores[n, loss])),
              "f1_minus_ce": interval(f1[n, loss] - f1[n, "ce"])} for n, loss in cells]  # fmt: skip
    before = {"figures": [suite.base("general")], "answers": [by_kind(answered(Path("out/general")))]}
    return {"setting": GENERAL, "base": before, "after": after}


def answered(folder):
    """{kind of answer: (questions, 2)}: DROP's exact match and F1, over passages that the base model never read."""
    passages = json.loads(Path("out/general-data/passages.json").read_text())
    asked = [(passage["passage"], qa) for passage in passages.values() for qa in passage["qa_pairs"]]
    rows = [{"user": "", "task": "question", "query": f"{text} {qa['question']}", "response": "?", "profile": []}
            for text, qa in asked]  # fmt: skip
    model, tokenizer, _ = load(folder)
    found = {"all": [], "number": [], "span": [], "date": []}
    for (_, qa), text in zip(asked, replies(model, tokenizer, rows, 0)):
        score = drop_score(text, [qa["answer"]])
        kind = "number" if qa["answer"]["number"] else "span" if qa["answer"]["spans"] else "date"
        found["all"].append(score)
        found[kind].append(score)
    return {kind: np.array(scores) for kind, scores in found.items()}


def by_kind(answers):
    return {kind: dict(zip(["exact match", "f1"], scores.mean(axis=0).tolist())) for kind, scores in answers.items()}


def interval(differences, draws=2000):
    """(mean, low, high) of a difference a question: bootstrap 95 % interval over the questions."""
    n = len(differences)
    drawn = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=draws) @ differences / n
    return float(differences.mean()), *np.quantile(drawn, [0.025, 0.975]).tolist()


def identify_table(suite):
    """Which tokens are personal? PIR, word matching, loss, entropy and the exact PIR as detectors."""
    best = needed("main", suite)["best"]
    cells = {loss: with_seeds({"loss": loss, "lr": best[loss]}, range(suite.seeds)) for loss in ["ce", "perce"]}
    folders = {"base": [Path("out/base")]} | {loss: list(map(folder_of, some)) for loss, some in cells.items()}
    return {name: [detection(folder) for folder in tqdm(some, desc=f"identify, {name}", unit="run")]
            for name, some in folders.items()}  # fmt: skip


def contrast_table(suite):
    """Nobody's profile or a stranger's in the plain view: which finds personal tokens better, which trains better?"""
    stranger = {"contrast": "stranger"}
    tried = suite.run([stranger | {"lr": lr} for lr in RATES], "val", desc="contrast, rates")
    by_rate = {lr: one["all"]["rouge_l"] for lr, one in zip(RATES, tried)}
    best = {"none": needed("rates", suite)["best"]["perce"], "stranger": max(RATES, key=by_rate.get)}
    cells = {contrast: with_seeds({"contrast": contrast, "lr": lr}, suite.few(3)) for contrast, lr in best.items()}
    figures = suite.table(cells, "contrast")

    def found(folder, contrast):
        one = detection(folder, contrast)
        fixed = {f"{name} at 0.8": one["at_0.8"][name] for name in ["f1", "precision"]}
        return one["detectors"]["PIR"] | fixed | {"correlation": one["correlation"]}

    folders = {"base": [Path("out/base")]} | {contrast: list(map(folder_of, some)) for contrast, some in cells.items()}
    detected = {name: {contrast: [found(folder, contrast) for folder in some] for contrast in best}
                for name, some in folders.items()}  # fmt: skip
    minus_none = versus(cells["stranger"], cells["none"])
    return {"best": best, "figures": figures, "minus_none": minus_none, "detection": detected}


TABLES = [cost_table, rates_table, main_table, again_table, identify_table, lr_table, clip_table, curve_table,
          bootstrap_table, strong_table, transfer_table, contrast_table, dialogue_table, ability_table]  # fmt: skip
EXPERIMENTS = {table.__name__.removesuffix("_table"): table for table in TABLES}


def record(name, suite):
    """Run an experiment and write data/results/NAME.json."""
    start, commit = time.perf_counter(), subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True)
    results = {"experiment": name, "says": EXPERIMENTS[name].__doc__, "seeds": suite.seeds,
               "default": DEFAULT, "scored": SCORED, **EXPERIMENTS[name](suite),
               "seconds": round(time.perf_counter() - start), "jobs": suite.jobs,
               "versions": {"python": platform.python_version(), "torch": torch.__version__,
                            "tiktoken": tiktoken.__version__},
               "cpu": torch.backends.cpu.get_cpu_capability(),  # its instructions round in their own way
               "commit": commit.stdout.strip()}  # fmt: skip
    path = RESULTS / f"{name}.json"
    checkpoint.replace_file(path, lambda new: Path(new).write_text(json.dumps(results, indent=1) + "\n"))
    print(f"wrote {path}")


def main():
    p = cli.Parser(prog="python -m perce_mini.experiments", description=__doc__)
    p.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(EXPERIMENTS)} (default all)")
    p.add_argument("--seeds", type=int, default=5, help="seeds of every cell that is repeated (default 5)")
    p.add_argument("--jobs", type=int, default=2, help="cells at a time, each on one core (default 2)")
    p.add_argument("--readme", action="store_true", help="only rewrite the README's sections from the recorded files")
    p.add_argument("--page", type=Path, metavar="FILE", help="only write a page of all tables and figures (HTML)")
    args = p.parse_args()
    if args.seeds < 1 or args.jobs < 1:
        p.error("--seeds and --jobs must be above 0")
    for name in args.names:
        if name not in EXPERIMENTS:
            p.error(f"no experiment {name!r}; there are {', '.join(EXPERIMENTS)}")
    if args.page:
        return page.write_page(args.page)
    if not args.readme:
        suite = Suite(args.seeds, args.jobs)
        prepare(args.jobs)
        for name in args.names or EXPERIMENTS:
            record(name, suite)
    report.write_readme()


if __name__ == "__main__":
    cli.run(main)
