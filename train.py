"""Fine-tune a small GPT on what people wrote, given what they wrote before.

    python train.py --loss perce

This makes the default data (data/personas), fine-tunes a small base model that comes with the project (data/base) into
out/perce, scores held-out users and shows a table. What exists already is used as it is.
"""

import json
import math
import os
from dataclasses import replace
from pathlib import Path
from statistics import mean

import torch

from data.personas import prepare
from perce_mini import base, checkpoint, cli, distributed, heatmap, hf, lora
from perce_mini.cli import COUNT, COUNT_OR_NONE, number
from perce_mini.dataset import CONTRASTS, encode_rows, held_out_file, read_examples, steps_per_epoch, subsample
from perce_mini.device import pick_device, print_plan
from perce_mini.errors import UserError
from perce_mini.files import check_writable, sha256, write_text_atomic
from perce_mini.model import GPT, GPTConfig
from perce_mini.percontrast import CLIP_MAX, CLIP_MIN, LOSSES
from perce_mini.sample import NOBODY, show_answers, three_users
from perce_mini.scoring import MAX_NEW_TOKENS, evaluate, summarize
from perce_mini.tables import say, show_table, write_predictions, write_scores
from perce_mini.tokenizer import SPECIAL
from perce_mini.trainer import SAVE_EVERY, Settings, check_same_run, fit

DATA = Path(os.path.relpath(Path(__file__).resolve().parent / "data"))
DEFAULT_DATA, SHIPPED_BASE, RECORDED = DATA / "personas", DATA / "base", DATA / "results/main.json"
LR_PRETRAINED, LR_LORA = 2e-5, 2e-4
REPORTS = ["results.json", "predictions.jsonl", "heat.html"]
CLIP = number(float, -1e6, 1e6)

# ------------------------------------------------------------------------------------------------ flags


def add_optimisation_flags(parser):
    default = Settings()
    g = parser.add_argument_group("optimisation")
    how = g.add_mutually_exclusive_group()
    how.add_argument("--steps", type=COUNT, help=f"optimisation steps (default {default.steps})")
    how.add_argument("--epochs", type=number(float, 1e-6, 1e6), help="passes over the data, instead of --steps")
    rates = f"(default {default.lr:g}; of a pretrained model {LR_PRETRAINED:g}, with LoRA {LR_LORA:g})"
    g.add_argument("--lr", type=cli.RATE, help=f"peak learning rate of AdamW {rates}")
    help = "share of the steps in which the rate rises; then it falls to 0"
    g.add_argument("--warmup", type=number(float, 0, 1), default=default.warmup, help=help)
    g.add_argument("--batch-size", type=COUNT, default=default.batch_size, help="examples in a micro-batch")
    help = "micro-batches in an optimisation step"
    g.add_argument("--grad-accum", type=COUNT, default=default.grad_accum, help=help)
    g.add_argument("--top-k", **cli.TOP_K, default=default.top_k)
    g.add_argument("--examples", type=COUNT, help="train on a subsample of so many examples (default all)")
    help = "of the order of batches, LoRA's start and the sampled text"
    g.add_argument("--seed", type=cli.SEED, default=0, help=help)
    g.add_argument("--save-every", type=COUNT, default=SAVE_EVERY, help="steps between checkpoints")


def add_base_flags(parser):
    what = "for data of your own; for the default data one of these flags trains another than data/base, into out/base"
    g = parser.add_argument_group("base model", what)
    g.add_argument("--base-steps", type=COUNT, help=f"optimisation steps (default {base.SETTINGS.steps})")
    g.add_argument("--tokenizer", help="bpe: learn one from the data (default); or gpt2, cl100k_base, ... by tiktoken")
    vocab_size = number(int, 256 + len(SPECIAL), 10**6)
    g.add_argument(
        "--vocab-size", type=vocab_size, help=f"entries of the learned tokenizer (default {base.VOCAB_SIZE})"
    )
    shape = {
        "block_size": ("longest sequence, tokens", number(int, 1, 10**6)),
        "n_layer": ("blocks", number(int, 1, 256)),
        "n_head": ("query heads", number(int, 1, 256)),
        "n_embd": ("width", number(int, 2, 2**15)),
        "n_kv_head": ("key and value heads", number(int, 1, 256)),
        "n_shifted": ("key heads shifted by a token, see model.py", number(int, 0, 256)),
    }
    for name, (what, kind) in shape.items():
        flag = "--" + name.replace("_", "-")
        g.add_argument(flag, type=kind, help=f"{what} (default {base.SHAPE[name]})")


def add_other_flags(parser):
    g = parser.add_argument_group("pretrained models")
    help = "train a step of rank R beside frozen weights; 0: all weights"
    g.add_argument("--lora-rank", type=number(int, 0, 4096), default=0, metavar="R", help=help)
    help = "JSON with a prompt's start, item, query, end (default: plain text, or the model's chat form)"
    g.add_argument("--template", type=Path, metavar="FILE", help=help)
    help = "keep less for the backward pass and compute it again: slower, with less memory"
    g.add_argument("--recompute", action="store_true", help=help)
    g = parser.add_argument_group("machine")
    g.add_argument("--device", **cli.DEVICE)
    g.add_argument("--compile", action="store_true", help="torch.compile the blocks: a slow start, faster steps")
    g = parser.add_argument_group("scoring")
    g.add_argument("--eval-examples", type=COUNT_OR_NONE, default=120, help="held-out examples to score, 0 for none")
    g.add_argument("--temperature", **cli.TEMPERATURE)


def parse_args():
    p = cli.Parser(description=__doc__)
    p.add_argument("--loss", choices=LOSSES, default="perce", help="how response tokens are weighted")
    p.add_argument("--clip-min", type=CLIP, default=CLIP_MIN, metavar="M", help="lowest weight, nats; not for ce")
    p.add_argument("--clip-max", type=CLIP, default=CLIP_MAX, metavar="M", help="highest weight, nats; not for ce")
    help = "folder with train.jsonl, perhaps val, test and base.jsonl, too (default data/personas, made at first)"
    p.add_argument("--data", type=Path, default=DEFAULT_DATA, metavar="DIR", help=help)
    help = "run or Hugging Face folder to start from (default: data/base, or for your own data out/base-NAME)"
    p.add_argument("--init", type=Path, metavar="DIR", help=help)
    help = "what takes the persona's place in the plain view: nothing, or the profile of a stranger"
    p.add_argument("--contrast", choices=CONTRASTS, default="none", help=help)
    p.add_argument("--out", type=Path, metavar="DIR", help="folder to write to (default out/LOSS)")
    again = p.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on where the run in --out stopped")
    again.add_argument("--overwrite", action="store_true", help="start anew where --out holds another run")
    for add_flags in [add_optimisation_flags, add_base_flags, add_other_flags]:
        add_flags(p)
    args = p.parse_args()
    complete(p, args)
    return args


def complete(p, args):
    """Add what follows from the flags, and refuse those that contradict each other.

    args.asked: what was said of the base model, the rest of which is as usual. args.start: the folder to start from.
    """
    if not args.clip_min <= args.clip_max:
        p.error(f"--clip-min {args.clip_min} is above --clip-max {args.clip_max}")
    usual = base.SHAPE | {"base_steps": base.SETTINGS.steps, "tokenizer": "bpe", "vocab_size": base.VOCAB_SIZE}
    args.asked = {name: getattr(args, name) for name in usual if getattr(args, name) is not None}
    vars(args).update(usual | args.asked)
    args.shape = {name: getattr(args, name) for name in base.SHAPE}
    try:
        base.check_shape(args.vocab_size, args.shape)
    except ValueError as error:
        p.error(str(error))
    if os.path.realpath(args.data) == os.path.realpath(DEFAULT_DATA):
        args.data = DEFAULT_DATA  # however it is spelled
    args.out = args.out or Path("out") / args.loss
    args.start = args.init or base_folder(args)
    if os.path.realpath(args.out) == os.path.realpath(args.start):
        p.error(f"--out {args.out} is what the run starts from: give another folder")
    if hf.is_folder(args.out):
        p.error(f"--out {args.out} holds a Hugging Face model: give another folder")
    if args.template and not args.init:
        p.error("--template is for a Hugging Face folder, which --init names")
    there = next(path for path in [args.out, *args.out.absolute().parents] if path.exists())
    if not (there.is_dir() and os.access(there, os.W_OK)):
        p.error(f"--out {args.out}: {there} is no folder to write to")
    args.template = args.template and hf.read_template(args.template)
    if "vocab_size" in args.asked and args.tokenizer != "bpe":
        p.error(f"--vocab-size is of a learned tokenizer; {args.tokenizer} has its own")
    if args.init and "base_steps" in args.asked:
        p.error("--base-steps trains a base model, and --init names another start")


# ------------------------------------------------------------------------------------ what a run needs first


def make_default_data(args, names):
    """Write these files of the default data where the last of them is missing; data of one's own stay as they are."""
    if args.data == DEFAULT_DATA:
        if distributed.rank() == 0 and not (args.data / f"{names[-1]}.jsonl").exists():
            prepare.write(args.data, {name: prepare.splits()[name] for name in names})
        distributed.barrier()


def load_rows(args):
    """The rows to train on and the rows to score. Makes the default data at first. Raises UserError."""
    make_default_data(args, ["train", "val", "test"])
    if not args.data.is_dir():
        raise UserError(f"{args.data}: --data takes a folder with train.jsonl in it")
    rows = read_examples(args.data / "train.jsonl")
    held_out = read_examples(held_out_file(args.data)) if args.eval_examples else []
    return subsample(rows, args.examples), subsample(held_out, args.eval_examples)


def base_folder(args):
    """Where the base model of the data lives: data/base, or out/base where a flag asks for another; out/base-NAME for
    data of one's own."""
    if args.data != DEFAULT_DATA:
        return Path(f"out/base-{args.data.resolve().name}")
    return Path("out/base") if args.asked else SHIPPED_BASE


def load_model(args, device):
    """(model, tokenizer, state) of --init or of the data's base model."""
    if args.init:
        frozen = torch.bfloat16 if args.lora_rank and device.type == "cuda" else torch.float32
        return hf.load_any(args.init, device, frozen, args.template, args.asked.get("block_size"))
    loaded = checkpoint.load(args.start, device)
    if args.data != DEFAULT_DATA and loaded[2]["settings"].get("data_sha256") != sha256(base_file(args)):
        raise UserError(f"{args.start} was trained on other data than {base_file(args)}: move it away to train another")
    return loaded


def base_file(args):
    """What the base model reads: base.jsonl of the data, or train.jsonl where there is none."""
    file = args.data / "base.jsonl"
    return file if file.exists() else args.data / "train.jsonl"


def train_base(args, rows, held_out, device):
    """Train the data's base model, and load it."""
    make_default_data(args, ["base"])
    settings = replace(
        base.SETTINGS,
        steps=args.base_steps,
        top_k=args.top_k,
        data=str(args.data),
        data_sha256=sha256(base_file(args)),
        tokenizer=args.tokenizer,
        vocab_size=args.vocab_size,
        processes=distributed.world_size(),
    )
    also = [(rows, 0), (held_out, MAX_NEW_TOKENS)]
    rows = read_examples(base_file(args)) if base_file(args).stem == "base" else rows
    base.make(settings, args.shape, rows, args.start, device, args.save_every, args.compile, also)
    return load_model(args, device)


def make_settings(args, start, n_rows):
    """What the flags say, and what follows from the model to start from. start: its settings, as far as known."""
    micro_batches = args.grad_accum * distributed.world_size()
    steps = args.steps or Settings.steps
    if args.epochs:
        steps = math.ceil(args.epochs * steps_per_epoch(n_rows, args.batch_size, micro_batches))
    if steps > 10**9:
        raise UserError(f"--epochs {args.epochs:g} are {steps} optimisation steps, which nobody waits for")
    lr = Settings.lr if start.get("tokenizer") != "pretrained" else LR_LORA if args.lora_rank else LR_PRETRAINED
    same = ["loss", "clip_min", "clip_max", "contrast", "top_k", "lora_rank"]
    same += ["warmup", "batch_size", "grad_accum", "seed"]
    return Settings(
        **{name: getattr(args, name) for name in same},
        lr=args.lr or lr,
        steps=steps,
        processes=distributed.world_size(),
        data=str(args.data),
        data_sha256=sha256(args.data / "train.jsonl"),
        examples=n_rows,
        init=str(args.start),
        template=json.dumps(args.template) if args.template else "",
        tokenizer=start.get("tokenizer", "bpe"),
        vocab_size=start.get("vocab_size", 0),
    )


def load_run(args, n_rows, device):
    """The run in --out, to go on with: (model, tokenizer, state), or None where a new one starts. Raises UserError.

    A finished run of the very same settings has nothing left to train and is only scored again.
    """
    if args.overwrite or not (args.resume or (args.out / "checkpoint.pt").exists()):
        return None
    run = checkpoint.load(args.out, device)
    state = run[2]
    settings = make_settings(args, state["settings"], n_rows)
    try:
        check_same_run(state, settings, args.out)
    except UserError as error:
        raise error if args.resume else UserError(f"{error}, or --overwrite to start anew") from None
    if state["step"] < settings.steps and not args.resume:
        done = f"{args.out} holds {state['step']} of {settings.steps} steps of this run"
        raise UserError(f"{done}: --resume goes on with it, --overwrite starts anew")
    return prepare_model(args, run, is_new_run=False)


def prepare_model(args, loaded, is_new_run=True):
    """What was loaded, its model with LoRA, recomputation and compilation as the flags say."""
    model, _, _ = loaded
    torch.manual_seed(args.seed)
    if is_new_run:
        lora.merge(model)  # what it may have of an earlier run
        if args.lora_rank:
            lora.add(model, args.lora_rank)
    model.recompute = args.recompute
    if args.compile:
        model.compile_blocks()
    return loaded


# ------------------------------------------------------------------------------------------------- the run


def announce(args, settings, start, run, n_held_out, device):
    """Say what this run will do. start, run: what `load_model` and `load_run` found."""
    model, tasks = start[0] if start else GPT(GPTConfig(args.vocab_size, **args.shape)).to(device), []
    if not start:
        n_examples = args.base_steps * base.SETTINGS.batch_size
        tasks.append((f"train the base model {args.start}: {args.base_steps} steps", n_examples))
    done = run[2]["step"] if run else 0
    going_on = f", of which {done} are done" if done else ""
    what = f"fine-tune {args.start} with {args.loss} into {args.out}: {settings.steps} steps{going_on}"
    tasks.append((what, (settings.steps - done) * settings.batch_size * settings.grad_accum))
    if n_held_out:
        tasks.append((f"score {n_held_out} held-out examples, before and after", 2 * n_held_out))
    print_plan(tasks, model, device)


def encode_held_out(args, rows, model, tokenizer):
    return encode_rows(rows, tokenizer, model.config.block_size, args.top_k, MAX_NEW_TOKENS, args.contrast)


def score(args, model, tokenizer, examples, desc):
    return evaluate(model, tokenizer, examples, MAX_NEW_TOKENS, args.temperature, args.seed, desc=f"score {desc}")


def what_ce_gains():
    """What the recorded experiment says of CE beside PerCE."""
    rows = json.loads(RECORDED.read_text(encoding="utf-8"))["tables"][0]["rows"]
    ce, perce = (mean(one["personal_accuracy"] for one in rows[loss]) for loss in ["ce", "perce"])
    seeds = f"over {len(rows['ce'])} seeds (data/results)"
    return f"CE gains most of that: by default {ce:.1%}, PerCE {perce:.1%}, {seeds}."


def report(args, scored, model, tokenizer, rows):
    """Write and show what was found. scored: {name: records} of the model before and after."""
    after = str(args.out)
    page = heatmap.page({after: scored[after]}, {after: tokenizer}, args.contrast)
    results, predictions, heat = (args.out / name for name in REPORTS)
    write_scores(results, scored)
    write_predictions(predictions, scored)
    write_text_atomic(heat, page)
    show_table(scored)
    was, now = (summarize(records)["personal_accuracy"] for records in scored.values())
    if now is not None:
        say(f"Look at the personal tokens, which only the profile can tell: {was:.0%} right before, {now:.0%} after.")
    if args.start == SHIPPED_BASE and args.loss == "perce" and RECORDED.exists():
        say(what_ce_gains())
    people, query = three_users([row for row in rows if row["profile"]] or rows, 0)
    say(f"The same query, for users and for nobody: {query}")
    show_answers(model, tokenizer, [*people[:2], NOBODY], query, top_k=args.top_k)
    say(f"Open {heat} to see every token's PIR. More texts: python -m perce_mini.sample {args.out}")


def main():
    args = parse_args()
    device = distributed.init_distributed(pick_device(args.device))
    rows, held_out = load_rows(args)
    run = load_run(args, len(rows), device)
    is_made = run or args.init or args.start == SHIPPED_BASE or base.is_finished(args.start, args.base_steps)
    start = run or (prepare_model(args, load_model(args, device)) if is_made else None)
    if held_out and run and not args.start.is_dir():
        raise UserError(f"{args.start}, with which the run is compared, is not there; --eval-examples 0 does without")
    distributed.barrier()  # all have seen what is there
    settings = make_settings(args, start[2]["settings"] if start else vars(args), len(rows))
    announce(args, settings, start, run, len(held_out), device)
    model, tokenizer, state = start or prepare_model(args, train_base(args, rows, held_out, device))
    base.check_flags(args.asked, model, state, args.start)

    examples = encode_rows(rows, tokenizer, model.config.block_size, args.top_k, contrast=args.contrast)
    to_score = encode_held_out(args, held_out, model, tokenizer)
    for name in ["checkpoint.pt", "log.jsonl", *REPORTS]:
        check_writable(args.out / name)
        if name in REPORTS and not run:
            (args.out / name).unlink(missing_ok=True)  # of a run that is overwritten
    fit(model, tokenizer, examples, settings, args.out, args.save_every, state if run else None)

    rank = distributed.rank()
    distributed.shutdown()
    if rank == 0:
        if held_out:
            before, its_tokenizer, _ = load_model(args, device)
            its_examples = encode_held_out(args, held_out, before, its_tokenizer)
            scored = {str(args.start): score(args, before, its_tokenizer, its_examples, "before")}
            scored[str(args.out)] = score(args, model, tokenizer, to_score, "after")
            report(args, scored, model, tokenizer, held_out)
        say(f"{args.out} holds {', '.join(sorted(path.name for path in args.out.iterdir() if path.is_file()))}")


if __name__ == "__main__":
    cli.run(main)
