"""Score one run, or compare several on the same held-out users.

    python eval.py out/perce
    python eval.py out/ce out/perce --samples 3 --heatmap out/heat.html

Every run is compared with the first one on the same examples. Each difference is printed with a
paired bootstrap 95 % interval over users.
"""

from pathlib import Path

from perce_mini import heatmap, hf, tables
from perce_mini.contrast import add_strangers
from perce_mini.dataset import encode_rows
from perce_mini.rows import held_out_file, read_examples, subsample
from perce_mini.runtime import cli
from perce_mini.runtime.cli import COUNT, COUNT_OR_NONE
from perce_mini.runtime.device import pick_device
from perce_mini.runtime.errors import UserError, plural
from perce_mini.runtime.files import check_output, write_text_atomic
from perce_mini.runtime.flags import CONTRAST, EVAL_BATCH, NEW_TOKENS
from perce_mini.runtime.models import load_model
from perce_mini.scoring import evaluate


def parse_args():
    p = cli.Parser(description=__doc__)
    help = "output folders of train.py, or Hugging Face folders"
    p.add_argument("runs", nargs="*", type=Path, metavar="DIR", help=help)
    help = "the model the runs started from; it is scored first"
    p.add_argument("--init", type=Path, metavar="DIR", help=help)
    help = (
        "folder with test.jsonl or val.jsonl, or a JSONL file (default: the data of the first run)"
    )
    p.add_argument("--data", type=Path, metavar="PATH", help=help)
    p.add_argument("--contrast", **CONTRAST)
    help = "JSON file with the prompt template, for Hugging Face folders (see train.py -h)"
    p.add_argument("--template", type=Path, metavar="FILE", help=help)
    help = "maximum sequence length in tokens, for Hugging Face folders"
    p.add_argument("--block-size", type=COUNT, metavar="N", help=help)
    help = "number of examples to score (always the same ones); 0 scores all"
    p.add_argument("--examples", type=COUNT_OR_NONE, default=120, metavar="N", help=help)
    help = "number of profile items in the prompt (default: as in the training of the first run)"
    p.add_argument("--top-k", **cli.TOP_K | {"help": help})
    p.add_argument("--max-new-tokens", **NEW_TOKENS)
    p.add_argument("--eval-batch-size", **EVAL_BATCH)
    p.add_argument("--temperature", **cli.TEMPERATURE)
    p.add_argument("--seed", **cli.TEXT_SEED)
    help = "number of examples whose generated texts are shown next to the reference"
    p.add_argument("--samples", type=COUNT_OR_NONE, default=1, metavar="N", help=help)
    p.add_argument("--all", action="store_true", help="show every metric, for every task")
    p.add_argument("--json", type=Path, metavar="FILE", help="write every metric (JSON)")
    help = "write every generated text (JSONL)"
    p.add_argument("--predictions", type=Path, metavar="FILE", help=help)
    help = "write a page that shades every token by its PIR (HTML)"
    p.add_argument("--heatmap", type=Path, metavar="FILE", help=help)
    p.add_argument("--device", **cli.DEVICE)
    args = p.parse_args()
    args.runs = ([args.init] if args.init else []) + args.runs
    if not args.runs:
        p.error("give at least one folder to score")
    if args.predictions and not args.max_new_tokens:
        p.error("--predictions needs generated texts, but --max-new-tokens 0 generates none")
    return args


def load_runs(args):
    """Load the runs onto the CPU: {folder: LoadedModel}."""
    template, loaded = args.template and hf.read_template(args.template), {}
    for folder in args.runs:  # the template of a run is part of the run
        options = {"template": template} if hf.is_folder(folder) else {}
        loaded[str(folder)] = load_model(folder, "cpu", block_size=args.block_size, **options)
    return loaded


def main():
    args = parse_args()
    device = pick_device(args.device)
    print(f"loading {', '.join(map(str, args.runs))}", flush=True)
    loaded = load_runs(args)
    first = next(iter(loaded.values())).settings
    top_k = first.top_k if args.top_k is None else args.top_k
    data = args.data or first.data
    if not data:
        advice = "give the texts to score with --data"
        raise UserError(f"a Hugging Face model comes without texts: {advice}")
    data_file = held_out_file(data)
    inputs = [file for run in args.runs for file in run.glob("*")]
    inputs += [data_file, args.template or data_file]
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
    tables.show_table(scored, args.all)
    if len(scored) > 1:
        tables.show_verdicts(scored)
    tables.warn_of_other_scripts(scored[name])  # every run has the same references
    tables.show_samples(scored, args.samples if n else 0)
    for file in outputs:
        print(f"wrote {file}")


if __name__ == "__main__":
    cli.run(main)
