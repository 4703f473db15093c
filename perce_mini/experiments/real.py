"""Fine-tune a pretrained model on real texts with several losses, and compare them.

    python -m perce_mini.experiments real --model SmolLM2-135M --data out/commits --json FILE

If you pass several learning rates, each loss uses the one with the best log P on val.jsonl. Every
model generates texts twice: by sampling and greedily. PIR is also measured with a stranger's
profile in the plain view. Without one, much of a pretrained model's PIR reflects what such texts
look like in general, not who wrote them.
"""

from dataclasses import replace
from pathlib import Path

from perce_mini.experiments.records import dump, provenance, table
from perce_mini.experiments.report import markdown_table
from perce_mini.experiments.runs import PIR_SHARE, Run, Scored
from perce_mini.experiments.suite import PAIRED, Suite, difference
from perce_mini.experiments.tabulate import named
from perce_mini.rows import held_out_file
from perce_mini.runtime import cli
from perce_mini.runtime.cli import COUNT, COUNT_OR_NONE
from perce_mini.runtime.errors import UserError
from perce_mini.runtime.files import check_writable, write_text_atomic

METHODS = {
    "ce": Run("ce"),
    "perce": Run(),
    "ce-then-perce": Run(ce_first=0.5),
    "perce-stranger": Run(contrast="stranger"),
    "perce-cap-2": Run(clip_max=2.0),
}
GREEDY, STRANGER = ", greedy", ", against a stranger"
OF_TEXTS = ["rouge_l", "rouge_p", "rouge_r", "meteor_exact", "length"]


def parse_args(words):
    p = cli.Parser(prog="python -m perce_mini.experiments real", description=__doc__)
    add = p.add_argument
    add("--model", type=Path, metavar="DIR", required=True, help="Hugging Face folder to fine-tune")
    help = "folder with train.jsonl and test.jsonl, and val.jsonl to choose a learning rate"
    add("--data", type=Path, metavar="DIR", required=True, help=help)
    help = f"one or more of {', '.join(METHODS)} (default: all)"
    add("--losses", nargs="+", choices=METHODS, default=list(METHODS), help=help)
    help = "learning rates to choose from"
    add("--lr", nargs="+", type=cli.RATE, default=[2e-5], help=help)
    help = "number of seeds per loss, at that loss's best learning rate"
    add("--seeds", type=COUNT, default=1, help=help)
    add("--steps", type=COUNT, default=Run.steps, help="optimisation steps")
    add("--batch-size", type=COUNT, default=8, help="examples per step")
    add("--top-k", **cli.TOP_K, default=Run.top_k)
    add("--block-size", type=COUNT, default=2048, help="maximum sequence length in tokens")
    help = "held-out examples to score; 0 for all"
    add("--examples", type=COUNT_OR_NONE, default=60, help=help)
    add("--jobs", type=COUNT, default=1, help="number of runs in parallel")
    add("--json", type=Path, metavar="FILE", help="write the tables to this file")
    return p.parse_args(words)


def measure(args):
    """Train and score all runs, except finished ones. Returns the tables. Raises UserError."""
    suite, split = Suite(args.seeds, args.jobs), held_out_file(args.data).stem
    same = {"top_k": args.top_k, "block_size": args.block_size}
    same |= {"data": str(args.data), "base": str(args.model)}
    overrides = same | {"lr": args.lr[0], "steps": args.steps, "batch_size": args.batch_size}
    methods = {loss: replace(METHODS[loss], **overrides) for loss in args.losses}
    rates_tables = []
    if len(args.lr) > 1:
        if split == "val":  # without test.jsonl, val.jsonl is what the runs are scored on
            reason = "has no test.jsonl, so the runs are scored on val.jsonl, which must not also"
            raise UserError(f"{args.data} {reason} choose the learning rate: pass a single --lr")
        val = Scored("val", args.examples, texts=False)
        methods, rates_table = suite.at_best_rates(methods, args.lr, val)
        rates_tables = [rates_table]
    groups = {"before": [Run(steps=0, **same)]} | suite.repeat(methods)
    texts = Scored(split, args.examples)
    scorings = {"": texts, GREEDY: replace(texts, temperature=0.0)}
    scorings[STRANGER] = replace(texts, texts=False, contrast="stranger")
    rows = {name: [{} for _ in runs] for name, runs in groups.items()}
    for suffix, scored in scorings.items():
        for name, seeds in suite.run_all(groups, f"scored{suffix}", scored).items():
            for row, figures in zip(rows[name], seeds):
                row |= {metric + suffix: value for metric, value in figures.items()}
    columns = OF_TEXTS + [metric + GREEDY for metric in OF_TEXTS]
    columns += ["logp", "logp_plain", "pir", PIR_SHARE, "pir" + STRANGER, PIR_SHARE + STRANGER]
    users = [row["user"] for row in texts.rows(groups["before"][0])]
    rates = ", ".join(f"{named(name)} {run.lr:g}" for name, run in methods.items())
    caption = f"{args.model.name} on {args.data.name}: {len(users)} held-out examples from"
    caption += f" {len(set(users))} users. Learning rates: {rates}."
    tables = [table(caption, columns, rows, transposed=True)]
    if "ce" in groups:
        tables.append(minus_ce(groups, texts, scorings[GREEDY]))
    return tables + rates_tables


def minus_ce(groups, texts, greedy):
    """Make the table of differences from CE."""
    rows = {}
    for name in [name for name in groups if name != "ce"]:
        runs = groups[name] * (len(groups["ce"]) // len(groups[name]))  # "before" has one seed
        changes = difference(runs, groups["ce"], texts)
        changes_greedy = difference(runs, groups["ce"], greedy)
        rows[name] = [changes | {m + GREEDY: change for m, change in changes_greedy.items()}]
    columns = OF_TEXTS + [metric + GREEDY for metric in OF_TEXTS] + ["logp"]
    return table(f"Differences from CE: {PAIRED}.", columns, rows, "minus CE", transposed=True)


def main(words):
    args = parse_args(words)
    if args.json:
        check_writable(args.json)
    title = f"Real texts: {(args.json or args.data).stem.removeprefix('real_').replace('_', ', ')}"
    # These paths differ between machines.
    paths = {str(args.model): "MODEL", str(args.data): "DATA"}
    words = [paths.get(word, word) for word in words]
    command = " ".join(["python -m perce_mini.experiments real", *words])
    results = {"title": title, "command": command} | provenance() | {"tables": measure(args)}
    for table_of_runs in results["tables"]:
        print(f"\n{markdown_table(table_of_runs)}")
    if args.json:
        write_text_atomic(args.json, dump(results))
        print(f"wrote {args.json}")
