"""One run of an experiment: trained, scored and kept.

It lives in out/experiments under a name that says how it differs from the default, and is trained and scored by a
process of its own. Finished runs are used as they are, so remove that folder when data or base model change.
"""

import json
import sys
from dataclasses import dataclass, fields

import numpy as np
import torch

from perce_mini import checkpoint, scoring
from perce_mini.dataset import encode_rows
from perce_mini.device import pick_device
from perce_mini.experiments.rows import DATA, MAX_NEW_TOKENS, RUNS, TOP_K, exact_tokens, held_out, rows_of
from perce_mini.experiments.weights import WeightRule
from perce_mini.files import write_text_atomic
from perce_mini.model import GPT
from perce_mini.percontrast import CLIP_MAX, CLIP_MIN
from perce_mini.trainer import NotFiniteError, Settings, fit

WATCHED, WATCH_EVERY = 90, 50  # examples of a point of a learning curve; steps between points


@dataclass(frozen=True)
class Run:
    """How a run is trained."""

    loss: str = "perce"
    lr: float = 4e-3
    seed: int = 0
    steps: int = 300
    examples: int = 0  # a subsample of so many; 0 for all
    task: str = ""  # its rows only
    clip_min: float = CLIP_MIN
    clip_max: float = CLIP_MAX
    weights: str = ""  # a rule of WeightRule in the place of the loss's own
    start: str = "base"  # the model in out/ that it starts from, or "scratch": random weights
    contrast: str = "none"
    watch: bool = False  # measure it along the way

    @property
    def folder(self):
        other = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        words = [f"{name}={x:g}" if isinstance(x, float) else f"{name}={x}" for name, x in other.items()]
        return RUNS / (",".join(words) or "default")

    def curve(self):
        """What was measured along the way: figures, one dict per point."""
        return json.loads((self.folder / "curve.json").read_text(encoding="utf-8"))


def load(folder):
    """The model, tokenizer and checkpoint of a folder, on the fastest device there is."""
    return checkpoint.load(folder, pick_device("auto"))


def load_start(run):
    """What a run starts from."""
    model, tokenizer, state = load("out/base" if run.start == "scratch" else f"out/{run.start}")
    if run.start == "scratch":
        torch.manual_seed(run.seed)
        model = GPT(model.config).to(model.head.device)
    return model, tokenizer, state


def train(run):
    """Train the model of a run into its folder."""
    model, tokenizer, state = load_start(run)
    rows = rows_of("train", run.task, run.examples)
    examples = encode_rows(rows, tokenizer, model.config.block_size, TOP_K, contrast=run.contrast)
    same = {f.name: getattr(run, f.name) for f in fields(Settings) if hasattr(run, f.name)}
    same |= {"examples": len(rows), "data": str(DATA), "init": f"out/{run.start}", "top_k": TOP_K}
    settings, curve = Settings(**same, vocab_size=state["settings"]["vocab_size"]), []

    def look(step):
        curve.append({"step": step} | point_of_curve(model, tokenizer))
        write_text_atomic(run.folder / "curve.json", json.dumps(curve))

    if run.watch:
        look(0)
    weight_fn = WeightRule(run, model, tokenizer) if run.weights else None
    try:
        fit(model, tokenizer, examples, settings, run.folder, WATCH_EVERY, None, weight_fn, look if run.watch else None)
    except NotFiniteError:  # a finding; what was saved before it is scored
        if not (run.folder / "checkpoint.pt").exists():
            raise
    (run.folder / "done").touch()


def generate_and_score(model, tokenizer, split, n=0, seed=0):
    """Records (scoring.evaluate) of a split, or of n of its examples."""
    return scoring.evaluate(model, tokenizer, held_out(split, model, tokenizer, n), MAX_NEW_TOKENS, 0.4, seed)


def point_of_curve(model, tokenizer):
    """The figures of a few validation examples, and how near PIR is to the exact one."""
    records = generate_and_score(model, tokenizer, "val", WATCHED)
    pir = np.concatenate([r["pir"] for r in records])
    exact = np.concatenate([exact_tokens(r["row"], tokenizer) for r in records])
    return scoring.summarize(records) | {"exact_correlation": float(np.corrcoef(pir, exact)[0, 1])}


def score(folder, split, seed=0, out=None):
    """Score a model on a split. Writes SPLIT.json: its figures, and the tallies that they are ratios of.

    Figures are {metric: value} over all tasks, and {"METRIC, TASK": value}.
    """
    model, tokenizer, state = load(folder)
    records, log = generate_and_score(model, tokenizer, split, seed=seed), state["log"]
    figures = {"mean gradient norm": float(np.mean([line["grad_norm"] for line in log])), "steps": len(log)}
    figures["mean weight of the last step"] = log[-1]["weight"]
    for task, some in scoring.by_task(records).items():
        figures |= {m if task == "all" else f"{m}, {task}": x for m, x in scoring.summarize(some).items()}
    scores = {"figures": figures, "tallies": scoring.table_of(records).tolist()}
    write_text_atomic((out or folder) / f"{split}.json", json.dumps(scores))


def scores_of(folder, split):
    """(figures, tallies) that `score` wrote; tallies (examples, metrics, 2)."""
    scores = json.loads((folder / f"{split}.json").read_text(encoding="utf-8"))
    return scores["figures"], np.array(scores["tallies"])


def finish(run, split):
    """Train a run, where that is not done yet, and score it on a split."""
    if not (run.folder / "done").exists():
        train(run)
    score(run.folder, split, run.seed)


if __name__ == "__main__":
    finish(Run(**json.loads(sys.argv[1])), sys.argv[2])
