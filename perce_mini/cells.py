"""A cell is one run of an experiment: trained, scored and kept. `Suite` runs many of them.

A cell says how its run differs from DEFAULT, and lives in out/experiments under a name that says the same. It is
trained and scored by a process of its own, on one core where there is no GPU. Finished cells are used as they are, so
remove that folder when data or base model change.
"""

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

import train
from data.personas.exact import exact_pir
from perce_mini import base, checkpoint, cli, scoring
from perce_mini.dataset import encode_rows, evenly, read_examples
from perce_mini.model import GPT
from perce_mini.percontrast import CLIP_MAX, CLIP_MIN, perce_weights, project, token_logprobs
from perce_mini.retrieval import retrieve
from perce_mini.trainer import fit

DATA, RUNS = Path("data/personas"), Path("out/experiments")
DEFAULT = {"loss": "perce", "lr": 4e-3, "seed": 0, "steps": 300, "examples": 0, "task": "", "clip_min": CLIP_MIN,
           "clip_max": CLIP_MAX, "weigh": "", "start": "base", "contrast": "none"}  # fmt: skip
RATES = [1e-3, 2e-3, 4e-3, 8e-3]
SCORED, WATCHED, WATCH_EVERY = 300, 90, 50  # held-out examples of a score, of a point of a curve; steps between points

# ------------------------------------------------------------------------------------------------ one cell


def load(folder):
    """A run's model, tokenizer and checkpoint, on the fastest device there is."""
    return checkpoint.load(folder, cli.pick_device("auto"))


def folder_of(cell):
    """Where a cell lives: what is not the default, in words."""
    other = {key: value for key in DEFAULT if (value := cell.get(key, DEFAULT[key])) != DEFAULT[key]}
    words = [f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}" for key, value in other.items()]
    return RUNS / (",".join(words) or "default")


def rows_of(split, task=""):
    return [row for row in read_examples(DATA / f"{split}.jsonl") if task in ("", row["task"])]


def exact_file(split):
    return RUNS / f"exact-{split}.json"


def exact_of(split, rows, tokenizer):
    """{key of a row: exact PIR (N,) of its response tokens}."""
    known = json.loads(exact_file(split).read_text())
    return {key_of(row): token_sums(known[key_of(row)], row["response"], tokenizer) for row in rows}


def exact_characters(row):
    items = [row["profile"][i] for i in sorted(retrieve(row, 4))]
    return np.round(exact_pir(row, items, range(1, len(row["response"]) + 2)), 4).tolist()


def key_of(row):
    return "\n".join([row["user"], row["query"], row["response"]])


def token_sums(per_character, text, tokenizer):
    """Sum what belongs to the characters of a token (the default world is ASCII); the last one is the end."""
    spans = tokenizer.spans(tokenizer.encode(text))
    return np.array([sum(per_character[start:end]) for start, end in spans] + [per_character[-1]])


def weight_rule(kind, cell, model, tokenizer, rows):
    """A rule for `fit` other than that of a loss, by name; None for the loss's own."""
    clipped = lambda pir: perce_weights(pir, cell["clip_min"], cell["clip_max"])

    @torch.no_grad()
    def pir_by(teacher, batch):
        score = lambda view: project(token_logprobs, teacher.states(view), teacher.head, batch.labels)
        return score(batch.persona) - score(batch.plain)

    if kind == "exact":
        answer = exact_of("train", rows, tokenizer)
        exact = lambda batch: np.concatenate([answer[key_of(e.row)] for e in batch.examples])
        return lambda batch, a, b: clipped(torch.tensor(exact(batch), dtype=a.dtype, device=a.device))
    if kind == "longce":  # the ratio itself, clipped from above (the same group's earlier loss)
        return lambda batch, a, b: (a - b).exp().clamp(max=5.0)
    if kind == "mean one":
        return lambda batch, a, b: clipped(a - b) / clipped(a - b).mean()
    if kind in ("frozen", "stale"):
        teacher, calls = GPT(model.config).to(model.head.device), [0]
        teacher.load_state_dict(model.state_dict())

        def by_copy(batch, a, b):
            if kind == "stale" and calls[0] % WATCH_EVERY == 0:
                teacher.load_state_dict(model.state_dict())
            calls[0] += 1
            return clipped(pir_by(teacher, batch))

        return by_copy
    if kind == "warm-up":  # CE at first; the cap rises from 1 to M within the first half of the steps
        calls = [0]

        def rising(batch, a, b):
            calls[0] += 1
            share = min(1, 2 * calls[0] / cell["steps"])
            return 1 + share * (clipped(a - b) - 1)

        return rising
    if kind:
        raise cli.RunError(f"no weight rule {kind!r}")


STARTS = {  # other base models: the world that they read, and for how many steps
    "strong": (["data.personas.prepare", "--same-author", 0.6], 400),
    "general": (["data.personas.general"], 2400),
}


BASE_ONLY = ["--loss", "ce", "--steps", 1, "--out", RUNS / "first", "--eval-examples", 0]


def make_start(name):
    """Train the base model out/NAME once; its data stays in out/NAME-data."""
    world, steps = STARTS[name]
    if not Path(f"out/{name}/checkpoint.pt").exists():
        call("-m", *world, "--out", f"out/{name}-data")
        call("train.py", "--data", f"out/{name}-data", "--base-steps", steps, *BASE_ONLY)
        os.replace(f"out/base-{name}-data", f"out/{name}")


def start_of(kind, seed):
    """The model that a cell starts from: "base", one of STARTS, or "scratch"."""
    model, tokenizer, state = load("out/base" if kind == "scratch" else Path("out") / kind)
    if kind == "scratch":
        torch.manual_seed(seed)
        model = GPT(model.config).to(model.head.device)
    return model, tokenizer, state


def run_cell(cell, split, watch):
    """Train the cell and score it on a split: its folder gets SPLIT.json, SPLIT.npy, and if watched curve.json."""
    out = folder_of(cell)
    cell = DEFAULT | cell
    if not (out / "done").exists() or watch and not (out / "curve.json").exists():
        model, tokenizer, state = start_of(cell["start"], cell["seed"])
        rows = evenly(rows_of("train", cell["task"]), cell["examples"])
        examples = encode_rows(rows, tokenizer, model.config.block_size, 4, contrast=cell["contrast"])
        settings = base.SETTINGS | {key: cell[key] for key in ["loss", "lr", "seed", "steps", "clip_min", "clip_max"]}
        settings |= {"top_k": 4, "examples": len(examples), "data": str(DATA), "tokenizer": "bpe"}
        settings |= {"vocab_size": state["settings"]["vocab_size"]}
        curve = []

        def look(step):
            curve.append({"step": step} | watched_figures(model, tokenizer))
            checkpoint.replace_file(out / "curve.json", lambda new: Path(new).write_text(json.dumps(curve)))

        start = time.perf_counter()
        if watch:
            out.mkdir(parents=True, exist_ok=True)
            look(0)
        rule = weight_rule(cell["weigh"], cell, model, tokenizer, rows)
        watched = look if watch else None
        try:
            fit(model, tokenizer, examples, out, settings, model.head.device, WATCH_EVERY, None, rule, watched)
        except cli.RunError:  # the loss is no number any more: a finding; what was saved before it is scored
            if not (out / "checkpoint.pt").exists():
                raise
        (out / "done").write_text(f"{time.perf_counter() - start:.1f}")
    score_folder(out, split, cell["seed"])


def held_out(split, model, tokenizer, n=0, contrast="none"):
    """SCORED examples of a split, or n of these."""
    rows = evenly(evenly(rows_of(split), SCORED), n)
    return encode_rows(rows, tokenizer, model.config.block_size, 4, train.MAX_NEW_TOKENS, contrast)


def score(model, tokenizer, examples, seed=0):
    return scoring.evaluate(model, tokenizer, examples, model.head.device, train.MAX_NEW_TOKENS, 0.4, seed)


def score_folder(folder, split, seed, out=None):
    out = out or folder
    if (out / f"{split}.npy").exists():
        return
    model, tokenizer, _ = load(folder)
    records = score(model, tokenizer, held_out(split, model, tokenizer), seed)
    figures = {task: scoring.summarize(rs) for task, rs in scoring.by_task(records).items()}
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    figures["all"] |= {"grad_norm": float(np.mean([line["grad_norm"] for line in log])), "steps_taken": len(log)}
    figures["all"] |= {"train_loss": log[-1]["loss"], "weight": log[-1]["weight"]}
    out.mkdir(parents=True, exist_ok=True)
    checkpoint.replace_file(out / f"{split}.json", lambda new: Path(new).write_text(json.dumps(figures)))
    with open(out / f"{split}.npy.new", "wb") as f:
        np.save(f, scoring.table_of(records))
    os.replace(out / f"{split}.npy.new", out / f"{split}.npy")


def watched_figures(model, tokenizer):
    """A point of a learning curve: the figures of a few validation examples, and how near PIR is to the exact one."""
    records = score(model, tokenizer, held_out("val", model, tokenizer, WATCHED))
    answer = exact_of("val", [r["row"] for r in records], tokenizer)
    pir = np.concatenate([r["logp"] - r["logp_plain"] for r in records])
    exact = np.concatenate([answer[key_of(r["row"])] for r in records])
    return scoring.summarize(records) | {"exact_correlation": float(np.corrcoef(pir, exact)[0, 1])}


# ------------------------------------------------------------------------------------------- many cells


def call(*command):
    """Run one of the project's commands on one core; its output is shown only when it fails."""
    command, one_core = list(map(str, command)), os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, env=one_core)
    if done.returncode:
        raise cli.RunError(f"{' '.join(command)} failed: {(done.stderr.strip().splitlines() or [''])[-1]}")


def bar(results, items, desc, unit):
    return tqdm(results, total=len(items), desc=desc, unit=unit, dynamic_ncols=True)


class Suite:
    """Runs cells, `jobs` at a time, and hands out what they measured."""

    def __init__(self, seeds, jobs):
        self.seeds, self.jobs = seeds, jobs

    def run(self, cells, split="test", watch=False, desc="cells"):
        """The figures {task: {metric: value}} of every cell on a split, in order."""

        def finished(cell):
            out = folder_of(cell)
            if not (out / f"{split}.npy").exists() or watch and not (out / "curve.json").exists():
                call("-m", "perce_mini.cells", json.dumps({"cell": cell, "split": split, "watch": watch}))
            return json.loads((out / f"{split}.json").read_text())

        unique = list({folder_of(cell): cell for cell in cells}.values())
        with ThreadPoolExecutor(self.jobs) as pool:
            found = list(bar(pool.map(finished, unique), unique, desc, "cell"))
        by_folder = dict(zip(map(folder_of, unique), found))
        return [by_folder[folder_of(cell)] for cell in cells]

    def few(self, most):
        """The seeds, at most so many (to save time)."""
        return range(min(self.seeds, most))

    def table(self, cells, desc, **how):
        """{name: cells} -> {name: the figures of each}; all are run as one heap."""
        flat = iter(self.run(sum(cells.values(), []), desc=desc, **how))
        return {name: [next(flat) for _ in some] for name, some in cells.items()}

    def base(self, name="base"):
        """The figures of a model before fine-tuning."""
        score_folder(Path("out") / name, "test", 0, RUNS / name)
        return json.loads((RUNS / name / "test.json").read_text())


def prepare(jobs):
    """What all cells need: the data, the base model, and the exact PIR of every character."""
    if not (Path("out/base/checkpoint.pt").exists() and (DATA / "test.jsonl").exists()):
        call("train.py", *BASE_ONLY)
    for split in ["val", "test", "train"]:
        if not exact_file(split).exists():
            rows = rows_of(split) if split == "train" else evenly(rows_of(split), SCORED)
            with ProcessPoolExecutor(jobs) as pool:
                solved = list(bar(pool.map(exact_characters, rows, chunksize=10), rows, f"exact PIR, {split}", "row"))
            known = json.dumps(dict(zip(map(key_of, rows), solved)))
            RUNS.mkdir(parents=True, exist_ok=True)
            checkpoint.replace_file(exact_file(split), lambda new: Path(new).write_text(known))


if __name__ == "__main__":
    run_cell(**json.loads(sys.argv[1]))
