"""Recorded results: `python -m perce_mini.experiments [--seeds N] [--jobs N] [--readme]`, from the project's folder.

CE against PerCE: the same base model, steps and data order, each loss at its own best learning rate. The rate
is chosen by ROUGE-L on validation users with seed 0; then every seed is scored on the test users. Runs live
in out/experiments, finished ones are used as they are, and the figures land in data/results/ce_perce.json.
"""

import json
import os
import platform
import re
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import tiktoken
import torch
from tqdm import tqdm

from perce_mini import checkpoint, cli

LOSSES, RATES = ["ce", "perce"], [1e-3, 2e-3, 4e-3, 8e-3]
RUNS, RESULTS, README = Path("out/experiments"), Path("data/results"), Path("README.md")
ROWS = {"rouge_l": "ROUGE-L F", "personal_accuracy": "personal tokens predicted right", "logp_personal": "log-likelihood of personal tokens, nats",
        "logp_base": "log-likelihood of the other tokens, nats", "logp": "log-likelihood of all tokens, nats", "contrast_f1": "PerContrast F1 (PIR > 0.8)",
        "contrast_auc": "PerContrast AUC"}  # fmt: skip
BENCH_ROWS = {"perce_over_ce": ("PerCE step / CE step, time", 2), "floor_over_ce": ("the floor: one forward of the short view more, by arithmetic", 2),
              "naive_over_ce": ("PerCE with logits of every position / CE step", 2), "perce_memory_over_ce": ("PerCE step / CE step, peak memory", 2),
              "naive_memory_over_ce": ("the naive way / CE step, peak memory", 2), "lossce_over_ce": ("LossCE step / CE step", 2),
              "entce_over_ce": ("EntCE step / CE step", 2), "rouge_speedup": ("ROUGE-L: quadratic table / bits, 500 words", 0),
              "cache_speedup": ("generation: uncached / cached", 1), "loader_over_trainer": ("loader's tokens/s / trainer's", 0)}  # fmt: skip


def call(*command):
    """Run one of the project's commands on one core; its output is shown only when it fails."""
    done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    if done.returncode:
        raise cli.RunError(f"{' '.join(map(str, command))} failed: {(done.stderr.strip().splitlines() or [''])[-1]}")


def trained(loss, lr, seed):
    """The folder of a finished run, trained now if need be."""
    out = RUNS / f"{loss}-{lr:g}-{seed}"
    if not (out / "done").exists():
        call("train.py", "--loss", loss, "--lr", lr, "--seed", seed, "--out", out, "--eval-examples", 0)
        (out / "done").touch()
    return out


def scored(runs, split, seed):
    """eval.py's figures of several runs on 300 examples of a split, {folder: {task: {metric: value}}}."""
    path = runs[-1] / f"{split}.json"
    if not path.exists() or list(json.loads(path.read_text())["runs"]) != list(map(str, runs)):
        call("eval.py", *runs, "--data", f"data/personas/{split}.jsonl", "--examples", 300, "--seed", seed, "--samples", 0, "--json", path)
    return json.loads(path.read_text())


def in_turns(function, cells, jobs):
    """[function(*cell) for every cell], `jobs` at a time, with a progress bar."""
    with ThreadPoolExecutor(jobs) as pool:
        return list(tqdm(pool.map(lambda cell: function(*cell), cells), total=len(cells), desc=function.__name__, unit="cell", dynamic_ncols=True))


def record(seeds, jobs):
    """All cells, from the first to the last; returns what goes into the results file."""
    if not (Path("out/base/checkpoint.pt")).exists():
        call("train.py", "--loss", "ce", "--steps", 1, "--out", RUNS / "first", "--eval-examples", 0)

    def validate(loss, lr):
        run = trained(loss, lr, seed=0)
        return scored([run], "val", seed=0)["runs"][str(run)]["all"]["rouge_l"]

    grid = [(loss, lr) for lr in RATES for loss in LOSSES]
    validation = dict(zip(grid, in_turns(validate, grid, jobs)))
    best = {loss: max(RATES, key=lambda lr: validation[loss, lr]) for loss in LOSSES}
    in_turns(trained, [(loss, best[loss], seed) for seed in range(seeds) for loss in LOSSES], jobs)

    def test(seed):
        runs = {"base": Path("out/base")} | {loss: trained(loss, best[loss], seed) for loss in LOSSES}
        figures = scored(list(runs.values()), "test", seed)
        cell = {name: figures["runs"][str(run)] for name, run in runs.items()}
        return {"seed": seed, **cell}

    cells = in_turns(test, [(seed,) for seed in range(seeds)], jobs)
    settings = checkpoint.read(trained("perce", best["perce"], 0))["settings"]
    return {
        "settings": {name: settings[name] for name in ["steps", "batch_size", "grad_accum", "warmup", "clip_min", "clip_max", "top_k", "examples"]},
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "tiktoken": tiktoken.__version__},
        "commit": subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip(),
        "validation_rouge_l": {loss: {f"{lr:g}": validation[loss, lr] for lr in RATES} for loss in LOSSES},
        "lr": best,
        "test": cells,
    }


def spread(values, digits=3):
    return f"{statistics.mean(values):.{digits}f} ± {statistics.stdev(values) if len(values) > 1 else 0:.{digits}f}"


def markdown(results):
    """The README's section, from the recorded figures alone."""
    cells, settings = results["test"], results["settings"]
    lines = [f"{len(cells)} seeds, mean ± standard deviation over seeds; {settings['steps']} steps of {settings['batch_size']} examples from the same base model,"
             f" 300 test examples; learning rate by validation ROUGE-L: CE {results['lr']['ce']:g}, PerCE {results['lr']['perce']:g}.", "",
             "| | base | CE | PerCE | PerCE − CE |", "|---|---|---|---|---|"]  # fmt: skip
    tasks = [task for task in cells[0]["ce"] if task != "all"]
    for metric, label in ROWS.items():
        lines.append(markdown_row(label, cells, "all", metric))
        if metric == "rouge_l":
            lines += [markdown_row(f"ROUGE-L F, {task}", cells, task, metric) for task in tasks]
    lines += ["", verdict(cells)]
    rates = results["validation_rouge_l"]["ce"]
    lines += ["", "Validation ROUGE-L at each learning rate (seed 0):", "", "| | " + " | ".join(rates) + " |", "|---" * (len(rates) + 1) + "|"]
    for loss, values in results["validation_rouge_l"].items():
        lines.append(f"| {loss} | " + " | ".join(f"{value:.3f}" for value in values.values()) + " |")
    return "\n".join(lines) + "\n"


def verdict(cells):
    """What the cells say in a sentence."""
    pairs = lambda metric: [(cell["ce"]["all"][metric], cell["perce"]["all"][metric]) for cell in cells]
    gain = lambda metric: statistics.mean(perce - ce for ce, perce in pairs(metric))
    relative = gain("rouge_l") / statistics.mean(ce for ce, _ in pairs("rouge_l"))
    ahead = lambda metric: f"ahead in {sum(perce > ce for ce, perce in pairs(metric))} of {len(cells)} seeds"
    return (f"So PerCE changes ROUGE-L by {relative:+.1%} of CE's ({ahead('rouge_l')}), personal tokens predicted right by {gain('personal_accuracy'):+.3f}"
            f" ({ahead('personal_accuracy')}), and the log-likelihood of the other tokens by {gain('logp_base'):+.3f} nats ({ahead('logp_base')}).")


def markdown_row(label, cells, task, metric):
    values = {run: [cell[run][task][metric] for cell in cells] for run in ["base", "ce", "perce"]}
    change = [b - a for a, b in zip(values["ce"], values["perce"])]
    return f"| {label} | {statistics.mean(values['base']):.3f} | {spread(values['ce'])} | {spread(values['perce'])} | {spread(change)} |"


def bench_markdown(figures):
    lines = [f"Measured on {figures['device']}; ratios of medians within one run.", "", "| | ratio |", "|---|---|"]
    lines += [f"| {label} | {figures[name]:.{digits}f} |" for name, (label, digits) in BENCH_ROWS.items()]
    return "\n".join(lines) + "\n"


def sections():
    """{name: what the README says between <!-- name: ... --> and <!-- end of name -->}, from the recorded files."""
    read = lambda name: json.loads((RESULTS / name).read_text(encoding="utf-8"))
    output = (RESULTS / "train_output.txt").read_text(encoding="utf-8")
    return {"example": f"```text\n{output}```\n", "results": markdown(read("ce_perce.json")), "bench": bench_markdown(read("bench.json"))}


def with_sections(readme):
    for name, text in sections().items():
        readme, n = re.subn(f"(<!-- {name}: [^\n]*-->\n).*?(<!-- end of {name} -->)", lambda match: match[1] + text + match[2], readme, flags=re.S)
        if n != 1:
            raise cli.RunError(f"{README} must have one section {name!r}, not {n}")
    return readme


def main():
    p = cli.Parser(prog="python -m perce_mini.experiments", description=__doc__)
    p.add_argument("--seeds", type=int, default=3, help="seeds to score (default 3)")
    p.add_argument("--jobs", type=int, default=2, help="runs at a time, each on one core (default 2)")
    p.add_argument("--readme", action="store_true", help="only rewrite the README's sections from the recorded files")
    args = p.parse_args()
    if args.seeds < 1 or args.jobs < 1:
        p.error("--seeds and --jobs must be above 0")
    if not args.readme:
        results = record(args.seeds, args.jobs)
        checkpoint.replace_file(RESULTS / "ce_perce.json", lambda new: Path(new).write_text(json.dumps(results, indent=1) + "\n"))
    text = with_sections(README.read_text(encoding="utf-8"))
    checkpoint.replace_file(README, lambda new: Path(new).write_text(text, encoding="utf-8"))
    print(f"wrote {README}")


if __name__ == "__main__":
    cli.run(main)
