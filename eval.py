"""Score one run, or compare several on the same held-out users.

    python eval.py out/perce
    python eval.py out/ce out/perce --samples 3 --heatmap out/heat.html
    python eval.py MODEL_FOLDER out/lora/ce out/lora/perce

Every run is compared with the first one on the same examples. Each difference is printed with a
paired bootstrap 95 % interval over users. A Hugging Face folder gets the same prompts as the runs
next to it: their template, maximum length and number of profile items.
"""

import json
from pathlib import Path

from perce_mini import heatmap, hf, tables
from perce_mini.contrast import add_strangers
from perce_mini.dataset import encode_rows
from perce_mini.rows import held_out_file, read_examples, subsample
from perce_mini.runtime import cli
from perce_mini.runtime.cli import COUNT_OR_NONE
from perce_mini.runtime.device import pick_device
from perce_mini.runtime.errors import UserError, plural
from perce_mini.runtime.files import check_output, write_text_atomic
from perce_mini.runtime.flags import CONTRAST, EVAL_BATCH, NEW_TOKENS
from perce_mini.runtime.models import load_model
from perce_mini.scoring import evaluate
from perce_mini.trainer import Settings


def parse_args():
    p = cli.Parser(description=__doc__)
    help = "output folders of train.py, or Hugging Face folders"
    p.add_argument("runs", nargs="+", type=Path, metavar="DIR", help=help)
    help = "folder with test.jsonl or val.jsonl, or a JSONL file (default: the last run's data)"
    p.add_argument("--data", type=Path, metavar="PATH", help=help)
    p.add_argument("--contrast", **CONTRAST)
    help = "number of examples to score (always the same ones); 0 scores all"
    p.add_argument("--examples", type=COUNT_OR_NONE, default=120, metavar="N", help=help)
    help = "number of profile items in the prompt (default: as in the training of the last run)"
    p.add_argument("--top-k", **cli.TOP_K | {"help": help})
    p.add_argument("--max-new-tokens", **NEW_TOKENS)
    p.add_argument("--eval-batch-size", **EVAL_BATCH)
    p.add_argument("--temperature", **cli.TEMPERATURE)
    p.add_argument("--seed", **cli.TEXT_SEED)
    help = "number of examples whose generated texts are shown next to the reference"
    p.add_argument("--samples", type=COUNT_OR_NONE, default=1, metavar="N", help=help)
    help = "write every metric, for every task (JSON)"
    p.add_argument("--json", type=Path, metavar="FILE", help=help)
    help = "write every generated text (JSONL)"
    p.add_argument("--predictions", type=Path, metavar="FILE", help=help)
    help = "write a page that shades every token by its PIR (HTML)"
    p.add_argument("--heatmap", type=Path, metavar="FILE", help=help)
    p.add_argument("--device", **cli.DEVICE)
    args = p.parse_args()
    if args.predictions and not args.max_new_tokens:
        p.error("--predictions needs generated texts, but --max-new-tokens 0 generates none")
    return args


def load_all(folders):
    """Load runs and Hugging Face folders onto the CPU.

    Returns {folder: LoadedModel} and the Settings of the last run.
    """
    runs = {folder: load_model(folder, "cpu") for folder in folders if not hf.is_folder(folder)}
    settings, same = Settings(), {}
    for run in runs.values():
        settings = run.settings
        same = {"block_size": run.model.config.block_size}
        same["template"] = json.loads(settings.template) if settings.template else None
    loaded = {str(f): runs.get(f) or load_model(f, "cpu", **same) for f in folders}
    return loaded, settings


def main():
    args = parse_args()
    device = pick_device(args.device)
    print(f"loading {', '.join(map(str, args.runs))}", flush=True)
    loaded, settings = load_all(args.runs)
    top_k = settings.top_k if args.top_k is None else args.top_k
    data = args.data or settings.data
    if not data:
        advice = "use --data to pass the texts to score"
        raise UserError(f"a Hugging Face model comes without texts: {advice}")
    data_file = held_out_file(data)
    inputs = [data_file, *(file for run in args.runs for file in run.glob("*"))]
    outputs = [file for file in [args.json, args.predictions, args.heatmap] if file]
    for file in outputs:
        check_output(file, inputs)
    rows = subsample(read_examples(data_file), args.examples)
    if args.contrast == "stranger":
        add_strangers(rows)
    print(f"scoring {plural(len(rows), 'example')} of {data_file} on {device}")
    examples, scored = {}, {}
    n = args.max_new_tokens
    for name, (model, tokenizer, _) in loaded.items():  # fail early on rows that do not fit
        examples[name] = encode_rows(rows, tokenizer, model.config.block_size, top_k, n)
    for name, (model, tokenizer, _) in loaded.items():
        model.to(device)  # one model at a time: they may not all fit on a GPU
        how = n, args.temperature, args.seed, name, args.eval_batch_size
        scored[name] = evaluate(model, tokenizer, examples[name], *how)
        model.cpu()
    tokenizers = {name: run.tokenizer for name, run in loaded.items()}
    if args.heatmap:
        write_text_atomic(args.heatmap, heatmap.page(scored, tokenizers, args.contrast))
    if args.json:
        tables.write_scores(args.json, scored)
    if args.predictions:
        tables.write_predictions(args.predictions, scored)
    tables.show_table(scored)
    if len(scored) > 1:
        tables.show_verdicts(scored)
    tables.warn_of_other_scripts(scored[name])  # every run has the same references
    tables.show_samples(scored, args.samples if n else 0)
    for file in outputs:
        print(f"wrote {file}")


if __name__ == "__main__":
    cli.run(main)
