"""Train and score a single run. It is kept in out/experiments.

The name of the run's folder lists what differs from the default run. Training and scoring happen in
a new process. An interrupted run is resumed, and a finished run is reused. So remove its folder if
its base model or the rows of data/personas change. (For other data, the folder's name contains a
hash of train.jsonl.)
"""

import hashlib
import json
import os
import sys
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from perce_mini import hf
from perce_mini.contrast import add_strangers
from perce_mini.dataset import encode_rows
from perce_mini.experiments.rows import DATA, RUNS, rows_of, rows_with_exact_pir
from perce_mini.experiments.weights import add_exact_pir
from perce_mini.percontrast import CLIP_MAX, CLIP_MIN
from perce_mini.runtime import checkpoint, cli
from perce_mini.runtime.device import pick_device
from perce_mini.runtime.files import check_writable, read_json, sha256, write_text_atomic
from perce_mini.runtime.models import load_model
from perce_mini.runtime.run import SAVE_EVERY, check_same_run, fit
from perce_mini.scoring import MAX_NEW_TOKENS, by_task, evaluate, summarize, tally_table
from perce_mini.trainer import NotFiniteError, Settings

PIR_SHARE = f"share of tokens with PIR > {CLIP_MIN}"  # a figure besides the METRICS of scoring.py


@dataclass(frozen=True)
class Run:
    """The settings of a run. A run of 0 steps is the base model itself."""

    loss: str = "perce"
    lr: float = Settings.lr
    seed: int = 0
    steps: int = Settings.steps
    examples: int = 0  # train on a random subset of this size; 0 for all rows
    task: str = ""  # train only on rows of this task
    clip_min: float = CLIP_MIN
    clip_max: float = CLIP_MAX
    ce_first: float = 0.0  # share of the steps that use CE, before `loss` takes over
    contrast: str = "none"
    batch_size: int = Settings.batch_size
    top_k: int = Settings.top_k
    block_size: int = 0  # longest sequence for a Hugging Face model; 0 for the model's own limit
    data: str = str(DATA)
    base: str = "data/base"  # the folder of the base model

    @property
    def folder(self):
        parts = []
        for field in fields(self):
            value = getattr(self, field.name)
            if value != field.default:
                text = f"{value:g}" if isinstance(value, float) else Path(str(value)).name
                if field.name == "data":
                    text += "-" + sha256(f"{value}/train.jsonl")[:6]
                if field.name == "base" and hf.is_folder(value):
                    text += "-" + hashlib.sha256(os.path.realpath(value).encode()).hexdigest()[:6]
                parts.append(f"{field.name}={text}")
        return RUNS / (",".join(parts) or "default")

    def rows(self):
        """Read the training rows."""
        if self.loss == "oracle":
            return rows_with_exact_pir("train")
        return rows_of("train", self.data, self.task, self.examples)


@dataclass(frozen=True)
class Scored:
    """What a run is scored on: n rows of a split, or all rows if n is 0."""

    split: str
    n: int = 0
    texts: bool = True  # also generate texts
    temperature: float = 0.4
    contrast: str = "none"

    @property
    def name(self):
        """The name of the JSON file with the scores."""
        name = f"{self.split}-{self.n}"
        if self.texts:
            name += "-texts"
        if not self.temperature:
            name += "-greedy"
        if self.contrast == "stranger":
            name += "-stranger"
        return name

    def rows(self, run):
        return rows_of(self.split, run.data, n=self.n)


VAL = Scored("val", 400, texts=False)  # for choosing learning rates
TEST, SOME = Scored("test", 600), Scored("test", 300)  # SOME saves time


def load(run):
    """Return the LoadedModel of a finished run, or of its base model if the run has 0 steps."""
    device = pick_device("auto")
    if run.steps:
        return checkpoint.load(run.folder, device)
    return load_model(run.base, device, block_size=run.block_size or None)


def encode(rows, run, model, tokenizer, contrast, max_new_tokens=0):
    """Convert rows to Examples. contrast: "stranger" gives the plain view a stranger's profile."""
    if contrast == "stranger":
        add_strangers(rows)
    return encode_rows(rows, tokenizer, model.config.block_size, run.top_k, max_new_tokens)


def train(run):
    """Train a run in its folder, or resume it there.

    If the loss becomes NaN or infinite, the run ends with its last checkpoint. Raises UserError if
    there is no checkpoint yet, or if the folder contains a run on other rows.
    """
    rows, folder = run.rows(), run.folder
    exists = (folder / "checkpoint.pt").exists()
    model, tokenizer, state = load(run if exists else replace(run, steps=0))
    same = {f.name: getattr(run, f.name) for f in fields(Settings) if hasattr(run, f.name)}
    same |= {"examples": len(rows), "data_sha256": sha256(f"{run.data}/train.jsonl")}
    settings = Settings(**same, init=run.base)
    if exists:
        check_same_run(state, settings, folder)
    examples = encode(rows, run, model, tokenizer, run.contrast)
    if run.loss == "oracle":
        add_exact_pir(examples, tokenizer)
    check_writable(folder / "checkpoint.pt")
    try:
        fit(model, tokenizer, examples, settings, folder, SAVE_EVERY, state if exists else None)
    except NotFiniteError:
        if not (folder / "checkpoint.pt").exists():
            raise
    (folder / "done").touch()


def score(run, scored):
    """Score a run, and write its figures and tallies (see scoring.tally_table) to a JSON file.

    The figures are {metric: value} over all tasks, and {"METRIC, TASK": value}.
    """
    model, tokenizer, state = load(run)
    examples = encode(scored.rows(run), run, model, tokenizer, scored.contrast, MAX_NEW_TOKENS)
    n = MAX_NEW_TOKENS if scored.texts else 0
    temperature, desc = scored.temperature, run.folder.name
    records = evaluate(model, tokenizer, examples, n, temperature, run.seed, desc)
    figures = {"steps": state.get("step", 0)} | figures_of(records)
    scores = {"figures": figures, "tallies": tally_table(records).tolist()}
    write_text_atomic(run.folder / f"{scored.name}.json", json.dumps(scores))


def figures_of(records):
    figures = {}
    for task, some in by_task(records).items():
        suffix = "" if task == "all" else f", {task}"
        figures |= {f"{metric}{suffix}": value for metric, value in summarize(some).items()}
    figures[PIR_SHARE] = float((np.concatenate([r["pir"] for r in records]) > CLIP_MIN).mean())
    return {name: value for name, value in figures.items() if value is not None}


def scores_of(run, scored):
    """Read what `score` wrote: the figures, and the tallies as an array (examples, metrics, 2)."""
    scores = read_json(run.folder / f"{scored.name}.json")
    return scores["figures"], np.array(scores["tallies"], dtype=float)


def main():
    run, scored = Run(**json.loads(sys.argv[1])), Scored(**json.loads(sys.argv[2]))
    if run.steps and not (run.folder / "done").exists():
        train(run)
    score(run, scored)


if __name__ == "__main__":
    cli.run(main)
