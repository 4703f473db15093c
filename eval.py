"""Score one run, or compare several on the same held-out users.

    python eval.py out/perce
    python eval.py out/base out/ce out/perce --samples 3 --heatmap out/heat.html

Every figure is a ratio of two sums over examples. Differences are to the first run, on the same examples, with
a paired bootstrap interval: users are drawn again and again.
"""

import json
import math
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from perce_mini import checkpoint, cli, heatmap
from perce_mini.dataset import CONTRASTS, collate, encode_rows, evenly, held_out_file, read_examples
from perce_mini.percontrast import CLIP_MIN, project, token_logprobs
from perce_mini.pretrained import is_folder, load_any, read_template
from perce_mini.rouge import rouge_l

# name: what it says, in the order of the table. "personal" tokens are known where the data names them.
METRICS = {
    "rouge_l": "ROUGE-L F of generated text",
    "rouge_p": "ROUGE-L precision",
    "rouge_r": "ROUGE-L recall",
    "logp": "log-likelihood with persona, nats a token",
    "logp_plain": "log-likelihood without persona, nats a token",
    "logp_personal": "log-likelihood of personal tokens, nats",
    "logp_base": "log-likelihood of the other tokens, nats",
    "personal_accuracy": "personal tokens predicted right",
    "pir": "mean PIR, nats a token",
    "contrast_p": f"PerContrast precision (PIR > {CLIP_MIN})",
    "contrast_r": f"PerContrast recall (PIR > {CLIP_MIN})",
    "contrast_f1": f"PerContrast F1 (PIR > {CLIP_MIN})",
    "contrast_auc": "PerContrast AUC within a response",
}


# ------------------------------------------------------------------------------------------ scoring


@torch.no_grad()
def score_tokens(model, examples, device):
    """Per example, arrays over its response tokens: log P in both views, and whether the likeliest token was right."""
    batch = collate(examples, device)
    is_top = lambda logits, labels: logits.argmax(-1) == labels
    with cli.autocast(device):
        states = model.states(batch.persona)
        per_token = {
            "logp": project(token_logprobs, states, model.head, batch.labels),
            "logp_plain": project(token_logprobs, model.states(batch.plain), model.head, batch.labels),
            "hit": project(is_top, states, model.head, batch.labels),
        }
    ends = np.cumsum([len(e.response) for e in examples])[:-1]
    split = {name: np.split(values.float().cpu().double().numpy(), ends) for name, values in per_token.items()}
    return [{name: values[i] for name, values in split.items()} for i in range(len(examples))]


def evaluate(model, tokenizer, examples, device, max_new_tokens, temperature, seed=0, batch_size=32, desc="score"):
    """Score and generate. Returns one record (dict) an example, in the order given."""
    records = []
    for i in tqdm(range(0, len(examples), batch_size), desc=desc, unit="batch", dynamic_ncols=True):
        group = examples[i : i + batch_size]
        scores = score_tokens(model, group, device)
        with cli.autocast(device):
            replies = model.generate([e.prompt for e in group], max_new_tokens, tokenizer.end, temperature, seed=seed + i) if max_new_tokens else [[]] * len(group)
        for e, score, reply in zip(group, scores, replies):
            text = tokenizer.decode(reply)
            records.append({"row": e.row, "read": e.read, "response": e.response, "personal": np.array(e.personal), **score,
                            "prediction": text, "rouge": rouge_l(text, e.row["response"])})
    return records


def tallies(record):
    """One example's share of every metric, as {name: (numerator, denominator)}."""
    logp, personal, n = record["logp"], record["personal"], len(record["logp"])
    pir = logp - record["logp_plain"]
    known = "personal" in record["row"]  # without it, personal tokens are unknown rather than none
    mine, base, found = personal & known, ~personal & known, pir > CLIP_MIN
    hits = (found & mine).sum()
    won = (pir[mine][:, None] > pir[base]).sum() + 0.5 * (pir[mine][:, None] == pir[base]).sum()
    rouge = record["rouge"]
    return {
        "rouge_l": (rouge.fmeasure, 1), "rouge_p": (rouge.precision, 1), "rouge_r": (rouge.recall, 1),
        "logp": (logp.sum(), n), "logp_plain": (record["logp_plain"].sum(), n),
        "logp_personal": (logp[mine].sum(), mine.sum()), "logp_base": (logp[base].sum(), base.sum()),
        "personal_accuracy": (record["hit"][mine].sum(), mine.sum()), "pir": (pir.sum(), n),
        "contrast_p": (hits, (found & known).sum()), "contrast_r": (hits, mine.sum()),
        "contrast_f1": (2 * hits, (found & known).sum() + mine.sum()), "contrast_auc": (won, mine.sum() * base.sum()),
    }  # fmt: skip


def table_of(records):
    """(examples, metrics, 2): numerators and denominators."""
    return np.array([[t[name] for name in METRICS] for t in map(tallies, records)], dtype=float)


def ratio(sums):
    """numerator / denominator over the last axis; NaN where there is nothing to count."""
    return np.divide(sums[..., 0], sums[..., 1], out=np.full(sums.shape[:-1], np.nan), where=sums[..., 1] > 0)


def summarize(records):
    """{metric: value}; None where the data does not say which tokens are personal."""
    return {name: None if np.isnan(x) else float(x) for name, x in zip(METRICS, ratio(table_of(records).sum(0)))}


def pir_quantiles(records):
    """{share: the PIR below which that share of the response tokens lies}."""
    pir = np.concatenate([r["logp"] - r["logp_plain"] for r in records])
    return {str(share): float(np.quantile(pir, share)) for share in [0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99]}


def difference(records, reference):
    """{metric: (difference, low, high)}: paired bootstrap 95 % interval over users."""
    return paired([r["row"]["user"] for r in records], table_of(records), table_of(reference))


def paired(users, table, reference, draws=2000, seed=0):
    """`difference`, of two tables of the same examples by these users."""
    users, index = np.unique(users, return_inverse=True)
    sums = np.zeros((2, len(users), len(METRICS), 2))
    for run, rows in enumerate([reference, table]):
        np.add.at(sums[run], index, rows)
    times = np.random.default_rng(seed).multinomial(len(users), np.full(len(users), 1 / len(users)), size=draws)
    drawn = ratio(np.einsum("du,rumx->rdmx", times, sums))
    change = drawn[1] - drawn[0]
    middle = ratio(sums[1].sum(0)) - ratio(sums[0].sum(0))
    return {name: (middle[i], *np.nanquantile(change[:, i], [0.025, 0.975])) for i, name in enumerate(METRICS) if not np.isnan(middle[i])}


# --------------------------------------------------------------------------------------------- showing


def by_task(records):
    """{"all": records, task: its records, ...}; one entry where there is one task."""
    tasks = sorted({r["row"]["task"] for r in records})
    return {"all": records} | {task: [r for r in records if r["row"]["task"] == task] for task in tasks if len(tasks) > 1}


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
    figures = {run: {task: summarize(rs) | {"pir_quantiles": pir_quantiles(rs)} for task, rs in by_task(records).items()} for run, records in runs.items()}
    name = lambda change: dict(zip(["difference", "low", "high"], change))
    changes = {run: {task: {m: name(change) for m, change in difference(records, by_task(runs[first])[task]).items()}
                     for task, records in by_task(runs[run]).items()} for run in others}
    text = json.dumps({"examples": len(runs[first]), "runs": figures, f"minus {first}": changes}, indent=1)
    checkpoint.replace_file(path, lambda new: Path(new).write_text(text + "\n", encoding="utf-8"))


def write_predictions(path, runs):
    """JSONL, a line an example and run: user, task, query, reference, prediction, ROUGE-L."""
    lines = []
    for run, records in runs.items():
        for r in records:
            asked = {"run": run} | {key: r["row"][key] for key in ["user", "task", "query"]}
            lines.append(json.dumps(asked | {"reference": r["row"]["response"], "prediction": r["prediction"], "rouge_l": r["rouge"].fmeasure}))
    checkpoint.replace_file(path, lambda new: Path(new).write_text("\n".join(lines) + "\n", encoding="utf-8"))


def parse_args():
    p = cli.Parser(description=__doc__)
    p.add_argument("runs", nargs="*", type=Path, metavar="DIR", help="folders that train.py wrote, or Hugging Face folders; differences are to the first")
    p.add_argument("--init", type=Path, metavar="DIR", help="one more folder, put first: what the runs started from")
    p.add_argument("--data", type=Path, metavar="PATH", help="folder with test.jsonl or val.jsonl, or a JSONL file (default: that of the first run)")
    p.add_argument("--contrast", choices=CONTRASTS, default="none",
                   help="what stands in the persona's place in the plain view: nothing, or the profile of a stranger (default none)")
    p.add_argument("--template", type=Path, metavar="FILE", help="of prompts for Hugging Face folders, see train.py -h")
    p.add_argument("--block-size", type=int, metavar="N", help="longest sequence for Hugging Face folders, tokens (default: their positions, at most 5000)")
    p.add_argument("--examples", type=int, default=120, metavar="N", help="examples to score, evenly over the file; 0 for all (default 120)")
    p.add_argument("--top-k", type=int, default=4, help="profile items in the prompt, the best by BM25 (default 4)")
    p.add_argument("--max-new-tokens", type=int, default=128, help="longest generated text, tokens (default 128)")
    p.add_argument("--temperature", type=float, default=0.4, help="of decoding; 0 takes the likeliest token (default 0.4)")
    p.add_argument("--seed", type=int, default=0, help="of the sampled text (default 0)")
    p.add_argument("--samples", type=int, default=1, metavar="N", help="texts to show beside their references (default 1)")
    p.add_argument("--json", type=Path, metavar="FILE", help="write every figure")
    p.add_argument("--predictions", type=Path, metavar="FILE", help="write every generated text (JSONL)")
    p.add_argument("--heatmap", type=Path, metavar="FILE", help="write a page that shades every response token by its PIR (HTML)")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default auto)")
    args = p.parse_args()
    for name in ["examples", "top_k", "temperature", "samples", "max_new_tokens"]:
        if not 0 <= getattr(args, name) < math.inf:
            p.error(f"--{name.replace('_', '-')} must not be below 0")
    args.runs = ([args.init] if args.init else []) + args.runs
    if not args.runs:
        p.error("name a folder to score")
    return args


def main():
    args = parse_args()
    device = cli.pick_device(args.device)
    template = read_template(args.template) if args.template else None
    loaded = {str(folder): load_any(folder, device, template=template if is_folder(folder) else None, block_size=args.block_size) for folder in args.runs}
    data = args.data or next((Path(state["settings"]["data"]) for _, _, state in loaded.values() if "data" in state["settings"]), None)
    if data is None:
        raise cli.RunError("--data must say what to score Hugging Face folders on")
    path = held_out_file(data) if data.is_dir() else data
    rows = evenly(read_examples(path), args.examples)
    print(f"scoring {len(rows)} examples of {path} on {device}")
    runs = {}
    for folder, (model, tokenizer, _) in loaded.items():
        examples = encode_rows(rows, tokenizer, model.config.block_size, args.top_k, args.max_new_tokens, args.contrast)
        runs[folder] = evaluate(model, tokenizer, examples, device, args.max_new_tokens, args.temperature, args.seed, desc=folder)
    show_table(runs)
    show_samples(runs, args.samples)
    if args.heatmap:
        text = heatmap.page({run: evenly(records, 30) for run, records in runs.items()}, {run: tokenizer for run, (_, tokenizer, _) in loaded.items()}, args.contrast)
        checkpoint.replace_file(args.heatmap, lambda new: Path(new).write_text(text, encoding="utf-8"))
    for path, write in [(args.json, write_json), (args.predictions, write_predictions)]:
        if path:
            write(path, runs)
    print(*(f"wrote {path}" for path in [args.json, args.predictions, args.heatmap] if path), sep="\n")


if __name__ == "__main__":
    cli.run(main)
