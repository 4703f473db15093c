"""One run of an experiment: trained, scored and kept in out/experiments.

The name of its folder says how it differs from the default run. A process of its own trains and
scores it. An interrupted run continues where it stopped; a finished one is used as it is, so remove
the folder when data/personas or a base model change. (Other data have their hash in the name.)
"""

import json
import sys
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from perce_mini.contrast import add_strangers
from perce_mini.dataset import encode_rows
from perce_mini.experiments.rows import DATA, RUNS, rows_of, solved_rows
from perce_mini.experiments.weights import add_exact_pir
from perce_mini.percontrast import CLIP_MAX, CLIP_MIN
from perce_mini.runtime import checkpoint, cli
from perce_mini.runtime.device import pick_device
from perce_mini.runtime.files import check_writable, read_json, sha256, write_text_atomic
from perce_mini.runtime.models import load_model
from perce_mini.runtime.run import SAVE_EVERY, check_same_run, fit
from perce_mini.scoring import MAX_NEW_TOKENS, by_task, evaluate, summarize, tally_table
from perce_mini.trainer import NotFiniteError, Settings

# Figures that are no metrics of scoring.py:
PERSONAL_SHARE, PIR_SHARE = "share of personal tokens", f"share of tokens with PIR > {CLIP_MIN}"


@dataclass(frozen=True)
class Run:
    """How a run is trained. A run of 0 steps is the model that the others start from."""

    loss: str = "perce"
    lr: float = Settings.lr
    seed: int = 0
    steps: int = Settings.steps
    examples: int = 0  # train on a subsample of so many rows; 0 for all
    task: str = ""  # train on the rows of this task alone
    clip_min: float = CLIP_MIN
    clip_max: float = CLIP_MAX
    contrast: str = "none"
    weight_decay: float = Settings.weight_decay
    batch_size: int = Settings.batch_size
    top_k: int = Settings.top_k
    block_size: int = 0  # longest sequence of a Hugging Face model; 0: what the model allows
    data: str = str(DATA)
    base: str = "data/base"  # the folder of the model that it starts from

    @property
    def folder(self):
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        parts = []
        for name, value in values.items():
            if value != getattr(Run, name):
                text = f"{value:g}" if isinstance(value, float) else Path(str(value)).name
                if name == "data":
                    text += "-" + sha256(f"{value}/train.jsonl")[:6]
                parts.append(f"{name}={text}")
        return RUNS / (",".join(parts) or "default")

    def rows(self):
        """The rows that it is trained on."""
        if self.loss == "oracle":
            return solved_rows("train")
        return rows_of("train", self.data, self.task, self.examples)


@dataclass(frozen=True)
class Scored:
    """What a run is scored on: n rows of a split (0 for all); and whether it writes texts."""

    split: str
    n: int = 0
    texts: bool = True
    temperature: float = 0.4
    contrast: str = "none"

    @property
    def name(self):
        marks = {"-texts": self.texts, "-greedy": not self.temperature}
        marks["-stranger"] = self.contrast == "stranger"
        return f"{self.split}-{self.n}" + "".join(mark for mark in marks if marks[mark])

    def rows(self, run):
        return run.rows() if self.split == "train" else rows_of(self.split, run.data, n=self.n)


VAL = Scored("val", 400)  # chooses learning rates
TEST, SOME = Scored("test", 600), Scored("test", 300)  # of `main` and `worlds`; of the others
TRAINED, NEW = Scored("train", texts=False), Scored("test", 600, texts=False)  # what is memorised


def load(run):
    """The LoadedModel of a finished run, or of the model that it starts from if it has 0 steps."""
    device = pick_device("auto")
    if run.steps:
        return checkpoint.load(run.folder, device)
    return load_model(run.base, device, block_size=run.block_size or None)


def encode(rows, run, model, tokenizer, contrast, max_new_tokens=0):
    """Rows -> Examples, with a stranger's profile in the plain view if `contrast` says so."""
    if contrast == "stranger":
        add_strangers(rows)
    return encode_rows(rows, tokenizer, model.config.block_size, run.top_k, max_new_tokens)


def train(run):
    """Train a run into its folder, or continue it there.

    A run whose loss becomes NaN is a result too: what was saved before is scored. Raises UserError
    if nothing was saved, or if the folder holds a run on other rows.
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
    """Score a run. Writes NAME.json: its figures, and the tallies that they are ratios of.

    Figures are {metric: value} over all tasks, and {"METRIC, TASK": value}.
    """
    model, tokenizer, state = load(run)
    rows = scored.rows(run)
    examples = encode(rows, run, model, tokenizer, scored.contrast, MAX_NEW_TOKENS)
    n = MAX_NEW_TOKENS * scored.texts
    how = scored.temperature, run.seed, run.folder.name
    records = evaluate(model, tokenizer, examples, n, *how)
    figures = {"steps": state.get("step", 0)} | figures_of(records)
    scores = {"figures": figures, "tallies": tally_table(records).tolist()}
    write_text_atomic(run.folder / f"{scored.name}.json", json.dumps(scores))


def figures_of(records):
    figures = {}
    for task, some in by_task(records).items():
        suffix = "" if task == "all" else f", {task}"
        figures |= {f"{metric}{suffix}": value for metric, value in summarize(some).items()}
    figures[PERSONAL_SHARE] = float(np.concatenate([r["personal"] for r in records]).mean())
    figures[PIR_SHARE] = float((np.concatenate([r["pir"] for r in records]) > CLIP_MIN).mean())
    return {name: value for name, value in figures.items() if value is not None}


def scores_of(run, scored):
    """(figures, tallies) that `score` wrote; tallies (examples, metrics, 2)."""
    scores = read_json(run.folder / f"{scored.name}.json")
    return scores["figures"], np.array(scores["tallies"], dtype=float)


def main():
    run, scored = Run(**json.loads(sys.argv[1])), Scored(**json.loads(sys.argv[2]))
    if run.steps and not (run.folder / "done").exists():
        train(run)
    score(run, scored)


if __name__ == "__main__":
    cli.run(main)
