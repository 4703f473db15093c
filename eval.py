"""Score one run, or compare several on the same held-out users.

    python eval.py out/perce
    python eval.py out/base out/ce out/perce --samples 3 --heatmap out/heat.html

Differences are to the first run, on the same examples, with a paired bootstrap 95 % interval over users.
"""

import os
from pathlib import Path

from perce_mini import cli, heatmap, hf
from perce_mini.cli import COUNT, COUNT_OR_NONE
from perce_mini.dataset import CONTRASTS, encode_rows, held_out_file, read_examples, subsample
from perce_mini.device import pick_device
from perce_mini.errors import UserError
from perce_mini.files import check_writable, write_text_atomic
from perce_mini.scoring import MAX_NEW_TOKENS, evaluate
from perce_mini.tables import show_samples, show_table, show_verdicts, write_predictions, write_scores
from perce_mini.trainer import Settings

MAY_DIFFER = ["loss", "clip_min", "clip_max", "contrast", "lr", "data"]  # of runs that are compared


def parse_args():
    p = cli.Parser(description=__doc__)
    help = "folders that train.py wrote, or Hugging Face folders; differences are to the first"
    p.add_argument("runs", nargs="*", type=Path, metavar="DIR", help=help)
    p.add_argument("--init", type=Path, metavar="DIR", help="one more folder, put first: what the runs started from")
    help = "folder with test.jsonl or val.jsonl, or a JSONL file (default: that of the first run)"
    p.add_argument("--data", type=Path, metavar="PATH", help=help)
    help = "what takes the persona's place in the plain view: nothing, or the profile of a stranger"
    p.add_argument("--contrast", choices=CONTRASTS, default="none", help=help)
    p.add_argument("--template", type=Path, metavar="FILE", help="of prompts for Hugging Face folders, see train.py -h")
    help = "longest sequence, tokens, of Hugging Face folders (default: their positions, at most 5000)"
    p.add_argument("--block-size", type=COUNT, metavar="N", help=help)
    help = "examples to score, a subsample of the file; 0 for all"
    p.add_argument("--examples", type=COUNT_OR_NONE, default=120, metavar="N", help=help)
    help = f"{cli.TOP_K['help']} (default: as the first run was trained)"
    p.add_argument("--top-k", **cli.TOP_K | {"help": help})
    help = "longest generated text, tokens; 0 writes none"
    p.add_argument("--max-new-tokens", type=COUNT_OR_NONE, default=MAX_NEW_TOKENS, help=help)
    p.add_argument("--temperature", **cli.TEMPERATURE)
    p.add_argument("--seed", **cli.TEXT_SEED)
    help = "texts to show beside their references"
    p.add_argument("--samples", type=COUNT_OR_NONE, default=1, metavar="N", help=help)
    p.add_argument("--all", action="store_true", help="show every figure, for every task")
    p.add_argument("--json", type=Path, metavar="FILE", help="write every figure")
    p.add_argument("--predictions", type=Path, metavar="FILE", help="write every generated text (JSONL)")
    p.add_argument("--heatmap", type=Path, metavar="FILE", help="write a page that shades tokens by their PIR (HTML)")
    p.add_argument("--device", **cli.DEVICE)
    args = p.parse_args()
    complete(p, args)
    return args


def complete(p, args):
    """Add what follows from the flags, and refuse those that contradict each other."""
    if args.predictions and not args.max_new_tokens:
        p.error("--predictions writes generated texts, and --max-new-tokens 0 generates none")
    args.files = [path for path in [args.json, args.predictions, args.heatmap] if path]
    if len({*map(os.path.realpath, args.files)}) < len(args.files):
        p.error("--json, --predictions and --heatmap need a file each")
    args.runs = ([args.init] if args.init else []) + args.runs
    if not args.runs:
        p.error("name a folder to score")
    if len({*map(os.path.realpath, args.runs)}) < len(args.runs):
        p.error("a folder is named twice")
    if args.template and not any(map(hf.is_folder, args.runs)):
        p.error("--template is for Hugging Face folders, and there is none")


def load_runs(args, device):
    """{name: (model, tokenizer, state)} of all folders. Raises UserError."""
    template = hf.read_template(args.template) if args.template else None
    loaded = {}
    for folder in args.runs:
        own = template if hf.is_folder(folder) else None
        loaded[str(folder)] = hf.load_any(folder, device, template=own, block_size=args.block_size)
        block_size = loaded[str(folder)][0].config.block_size
        if args.block_size not in (None, block_size):
            raise UserError(f"{folder} was made with --block-size {block_size}, not {args.block_size}")
    return loaded


def load_rows(args, loaded):
    """The rows to score, and the file that they are from. Raises UserError."""
    trained_on = (state["settings"].get("data") for _, _, state in loaded.values())
    data = args.data or next(filter(None, trained_on), None)
    if not data:
        raise UserError("--data must say what to score Hugging Face folders on")
    path = held_out_file(data)
    return subsample(read_examples(path), args.examples), path


def score(args, loaded, rows):
    """{name: records} of all runs, on the same rows."""
    n, examples = args.max_new_tokens, {}
    for folder, (model, tokenizer, _) in loaded.items():  # what does not fit is said before the work
        examples[folder] = encode_rows(rows, tokenizer, model.config.block_size, args.top_k, n, args.contrast)
    return {
        folder: evaluate(model, tokenizer, examples[folder], n, args.temperature, args.seed, desc=folder)
        for folder, (model, tokenizer, _) in loaded.items()
    }


def files_of(runs):
    """The checkpoints of runs, all files of Hugging Face folders."""
    return [file for run in runs for file in run.glob("*" if hf.is_folder(run) else "checkpoint.pt")]


def warn_of_differences(loaded):
    """Say where runs were not made alike: a comparison of losses then compares something else, too."""
    settings = {run: state["settings"] for run, (_, _, state) in loaded.items() if state["settings"].get("init")}
    for name in [name for name in vars(Settings()) if name not in MAY_DIFFER]:
        values = {run: made.get(name, getattr(Settings, name)) for run, made in settings.items()}
        if len(set(values.values())) > 1:
            different = ", ".join(f"{run} {str(value)[:20]}" for run, value in values.items())
            print(f"note: the runs differ in {name}: {different}")


def main():
    args = parse_args()
    device = pick_device(args.device)
    loaded = load_runs(args, device)
    warn_of_differences(loaded)
    if args.top_k is None:
        trained = (state["settings"].get("top_k") for _, _, state in loaded.values())
        args.top_k = next((top_k for top_k in trained if top_k is not None), Settings.top_k)
    rows, path = load_rows(args, loaded)
    read = {os.path.realpath(file) for file in [path, *files_of(args.runs)]}
    for file in args.files:
        check_writable(file)
        if os.path.realpath(file) in read:
            raise UserError(f"{file} is read here, so it cannot be written: give another file")
    print(f"scoring {len(rows)} examples of {path} on {device}")
    runs = score(args, loaded, rows)
    if args.heatmap:
        tokenizers = {run: tokenizer for run, (_, tokenizer, _) in loaded.items()}
        write_text_atomic(args.heatmap, heatmap.page(runs, tokenizers, args.contrast))
    if args.json:
        write_scores(args.json, runs)
    if args.predictions:
        write_predictions(args.predictions, runs)
    show_table(runs, args.all)
    show_verdicts(runs)
    show_samples(runs, args.samples if args.max_new_tokens else 0)
    for file in args.files:
        print(f"wrote {file}")


if __name__ == "__main__":
    cli.run(main)
