"""Score one run, or compare several on the same held-out users.

    python eval.py out/perce
    python eval.py out/base out/ce out/perce --samples 3 --heatmap out/heat.html

Differences are to the first run, on the same examples, with a paired bootstrap 95 % interval over users.
"""

import json
import math
from pathlib import Path

from perce_mini import checkpoint, cli, heatmap
from perce_mini.dataset import CONTRASTS, encode_rows, evenly, held_out_file, read_examples
from perce_mini.pretrained import is_folder, load_any, read_template
from perce_mini.scoring import METRICS, by_task, difference, evaluate, pir_quantiles, summarize


def show_table(runs, metrics=METRICS):
    """Print {run: records} as a table per task: a line a metric, a column a run, differences to the first run."""
    first, *others = runs
    for task, reference in by_task(runs[first]).items():
        print(f"\n{task}: {len(reference)} examples of {len({r['row']['user'] for r in reference})} users")
        values = {run: summarize(by_task(runs[run])[task]) for run in runs}
        change = {run: difference(by_task(runs[run])[task], reference) for run in others}
        width = max(len(METRICS[m]) for m in metrics)
        print(" " * width, f"{first:>12}", *(f"{run:>12}{'':24}" for run in others))
        for m in metrics:
            if values[first][m] is not None:
                line = f"{METRICS[m]:<{width}} {values[first][m]:>12.3f}"
                for run in others:
                    d, low, high = change[run][m]
                    line += f" {values[run][m]:>12.3f}  {d:+.3f} [{low:+.3f}, {high:+.3f}]"
                print(line)


def show_samples(runs, n):
    """Print what the runs wrote for the first n of the examples, beside the reference."""
    for record in evenly(next(iter(runs.values())), n) if n else []:
        print(f"\n[{record['row']['task']}, user {record['row']['user']}] {record['row']['query']}")
        print(f"  reference: {record['row']['response']}")
        for run, records in runs.items():
            mine = next(r for r in records if r["row"] is record["row"])
            print(f"  {run} (ROUGE-L {mine['rouge'].fmeasure:.2f}): {mine['prediction']}")


def write_json(path, runs):
    """Every figure of every run, overall and per task, and the differences to the first run."""
    first, *others = runs
    per_task = {run: by_task(records) for run, records in runs.items()}
    all_of = lambda records: summarize(records) | {"pir_quantiles": pir_quantiles(records)}
    figures = {run: {task: all_of(records) for task, records in tasks.items()} for run, tasks in per_task.items()}

    def change(run, task):
        changes = difference(per_task[run][task], per_task[first][task])
        return {metric: dict(zip(["difference", "low", "high"], d)) for metric, d in changes.items()}

    changes = {run: {task: change(run, task) for task in per_task[run]} for run in others}
    text = json.dumps({"examples": len(runs[first]), "runs": figures, f"minus {first}": changes}, indent=1)
    checkpoint.replace_file(path, lambda new: Path(new).write_text(text + "\n", encoding="utf-8"))


def write_predictions(path, runs):
    """JSONL, a line an example and run: user, task, query, reference, prediction, ROUGE-L."""
    lines = []
    for run, records in runs.items():
        for r in records:
            asked = {"run": run} | {key: r["row"][key] for key in ["user", "task", "query"]}
            written = {"reference": r["row"]["response"], "prediction": r["prediction"], "rouge_l": r["rouge"].fmeasure}
            lines.append(json.dumps(asked | written))
    checkpoint.replace_file(path, lambda new: Path(new).write_text("\n".join(lines) + "\n", encoding="utf-8"))


def parse_args():
    p = cli.Parser(description=__doc__)
    p.add_argument("runs", nargs="*", type=Path, metavar="DIR",
                   help="folders that train.py wrote, or Hugging Face folders; differences are to the first")
    p.add_argument("--init", type=Path, metavar="DIR", help="one more folder, put first: what the runs started from")
    p.add_argument("--data", type=Path, metavar="PATH",
                   help="folder with test.jsonl or val.jsonl, or a JSONL file (default: that of the first run)")
    p.add_argument("--contrast", choices=CONTRASTS, default="none",
                   help="what takes the persona's place in the plain view: nothing, or the profile of a stranger")
    p.add_argument("--template", type=Path, metavar="FILE", help="of prompts for Hugging Face folders, see train.py -h")
    p.add_argument("--block-size", type=int, metavar="N",
                   help="longest sequence for Hugging Face folders, tokens (default: their positions, at most 5000)")
    p.add_argument("--examples", type=int, default=120, metavar="N",
                   help="examples to score, evenly over the file; 0 for all")
    p.add_argument("--top-k", type=int, default=4, help="profile items in the prompt, the best by BM25")
    p.add_argument("--max-new-tokens", type=int, default=128, help="longest generated text, tokens; 0 writes none")
    p.add_argument("--temperature", type=float, default=0.4, help="of decoding; 0 takes the likeliest token")
    p.add_argument("--seed", type=int, default=0, help="of the sampled text")
    p.add_argument("--samples", type=int, default=1, metavar="N", help="texts to show beside their references")
    p.add_argument("--json", type=Path, metavar="FILE", help="write every figure")
    p.add_argument("--predictions", type=Path, metavar="FILE", help="write every generated text (JSONL)")
    p.add_argument("--heatmap", type=Path, metavar="FILE", help="write a page that shades tokens by their PIR (HTML)")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    args = p.parse_args()
    for name in ["examples", "top_k", "temperature", "samples", "max_new_tokens"]:
        if not 0 <= getattr(args, name) < math.inf:
            p.error(f"--{name.replace('_', '-')} must not be below 0")
    if args.predictions and not args.max_new_tokens:
        p.error("--predictions writes generated texts, and --max-new-tokens 0 generates none")
    args.runs = ([args.init] if args.init else []) + args.runs
    if not args.runs:
        p.error("name a folder to score")
    return args


def main():
    args = parse_args()
    device = cli.pick_device(args.device)
    template = read_template(args.template) if args.template else None
    loaded, data = {}, args.data
    for folder in args.runs:
        own = template if is_folder(folder) else None
        loaded[str(folder)] = load_any(folder, device, template=own, block_size=args.block_size)
        data = data or loaded[str(folder)][2]["settings"].get("data")
    if not data:
        raise cli.RunError("--data must say what to score Hugging Face folders on")
    path = held_out_file(data) if Path(data).is_dir() else Path(data)
    rows = evenly(read_examples(path), args.examples)
    for file in filter(None, [args.json, args.predictions, args.heatmap]):
        file.parent.mkdir(parents=True, exist_ok=True)  # what cannot be written is said before the work, not after it
    print(f"scoring {len(rows)} examples of {path} on {device}")
    runs = {}
    for folder, (model, tokenizer, _) in loaded.items():
        n = args.max_new_tokens
        examples = encode_rows(rows, tokenizer, model.config.block_size, args.top_k, n, args.contrast)
        runs[folder] = evaluate(model, tokenizer, examples, device, n, args.temperature, args.seed, desc=folder)
    if args.heatmap:
        shown = {run: evenly(records, 30) for run, records in runs.items()}
        text = heatmap.page(shown, {run: tokenizer for run, (_, tokenizer, _) in loaded.items()}, args.contrast)
        checkpoint.replace_file(args.heatmap, lambda new: Path(new).write_text(text, encoding="utf-8"))
    for path, write in [(args.json, write_json), (args.predictions, write_predictions)]:
        if path:
            write(path, runs)
    show_table(runs)
    show_samples(runs, args.samples if args.max_new_tokens else 0)
    print(*(f"wrote {path}" for path in [args.json, args.predictions, args.heatmap] if path), sep="\n")


if __name__ == "__main__":
    cli.run(main)
