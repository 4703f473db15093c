"""One run of an experiment: trained, scored and kept.

It lives in out/experiments under a name that says how it differs from the default, and is trained and scored by a
process of its own. Finished runs are used as they are, so remove that folder when data or base model change.
"""

import json
import sys
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import numpy as np

from perce_mini import checkpoint, scoring
from perce_mini.dataset import encode_rows
from perce_mini.device import pick_device
from perce_mini.experiments import weights
from perce_mini.experiments.rows import DATA, RUNS, TOP_K, held_out, rows_of, solved_rows
from perce_mini.files import write_text_atomic
from perce_mini.percontrast import CLIP_MAX, CLIP_MIN
from perce_mini.trainer import NotFiniteError, Settings, fit

SAVE_EVERY = 50  # steps


@dataclass(frozen=True)
class Run:
    """How a run is trained."""

    loss: str = "perce"
    lr: float = Settings.lr
    seed: int = 0
    steps: int = Settings.steps
    examples: int = 0  # a subsample of so many; 0 for all
    task: str = ""  # its rows only
    clip_min: float = CLIP_MIN
    clip_max: float = CLIP_MAX
    weights: str = ""  # a rule of weights.py in the place of the loss's own
    contrast: str = "none"
    weight_decay: float = Settings.weight_decay
    world: str = ""  # a folder in out/worlds; the default data if empty
    base: str = "data/base"  # the model that it starts from

    @property
    def folder(self):
        other = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        values = [f"{x:g}" if isinstance(x, float) else Path(str(x)).name for x in other.values()]
        return RUNS / (",".join(map("=".join, zip(other, values))) or "default")


@dataclass(frozen=True)
class Scored:
    """What a run is scored on: so many rows of a split, and whether it writes texts too."""

    split: str
    n: int
    texts: bool

    @property
    def name(self):
        return f"{self.split}-{self.n}{'-texts' * self.texts}"

    def rows(self, run):
        """Those to train on are the run's own."""
        if self.split == "train":
            return rows_of("train", run.world, run.task, run.examples)
        return rows_of(self.split, run.world, n=self.n)


VAL = Scored("val", 400, True)  # chooses rates
TRAINED, NEW = Scored("train", 0, False), Scored("test", 600, False)  # say what was learned by heart
TEST, SOME = Scored("test", 600, True), Scored("test", 300, True)  # of `main`; of the other experiments


def load(folder):
    """The model, tokenizer and checkpoint of a folder, on the fastest device there is."""
    return checkpoint.load(folder, pick_device("auto"))


def train(run):
    """Train the model of a run into its folder."""
    model, tokenizer, state = load(run.base)
    rows = solved_rows("train") if run.weights == "exact" else rows_of("train", run.world, run.task, run.examples)
    examples = encode_rows(rows, tokenizer, model.config.block_size, TOP_K, contrast=run.contrast)
    same = {f.name: getattr(run, f.name) for f in fields(Settings) if hasattr(run, f.name)}
    same |= {"examples": len(rows), "data": run.world or str(DATA), "init": run.base, "top_k": TOP_K}
    settings = Settings(**same, vocab_size=state["settings"]["vocab_size"])
    weight_fn = partial(getattr(weights, run.weights), run, tokenizer) if run.weights else None
    try:
        fit(model, tokenizer, examples, settings, run.folder, SAVE_EVERY, weight_fn=weight_fn)
    except NotFiniteError:  # a finding; what was saved before it is scored
        if not (run.folder / "checkpoint.pt").exists():
            raise
    (run.folder / "done").touch()


def score(folder, scored, run, out=None):
    """Score a model. Writes NAME.json: its figures, and the tallies that they are ratios of.

    Figures are {metric: value} over all tasks, and {"METRIC, TASK": value}.
    """
    model, tokenizer, state = load(folder)
    examples = held_out(scored.rows(run), model, tokenizer)
    records = scoring.evaluate(model, tokenizer, examples, scoring.MAX_NEW_TOKENS * scored.texts, 0.4, run.seed)
    figures = {"steps": len(state["log"])}
    for task, some in scoring.by_task(records).items():
        figures |= {m if task == "all" else f"{m}, {task}": x for m, x in scoring.summarize(some).items()}
    scores = {"figures": figures, "tallies": scoring.table_of(records).tolist()}
    write_text_atomic((out or folder) / f"{scored.name}.json", json.dumps(scores))


def scores_of(folder, scored):
    """(figures, tallies) that `score` wrote; tallies (examples, metrics, 2)."""
    scores = json.loads((folder / f"{scored.name}.json").read_text(encoding="utf-8"))
    return scores["figures"], np.array(scores["tallies"], dtype=float)


def finish(run, scored):
    """Train a run, where that is not done yet, and score it."""
    if not (run.folder / "done").exists():
        train(run)
    score(run.folder, scored, run)


if __name__ == "__main__":
    finish(Run(**json.loads(sys.argv[1])), Scored(**json.loads(sys.argv[2])))
