"""The flags of train.py, and the runs they describe."""

import json
import math
import os
from pathlib import Path

from perce_mini import base, hf
from perce_mini.contrast import CONTRASTS
from perce_mini.dataset import steps_per_epoch
from perce_mini.percontrast import CLIP_MAX, CLIP_MIN, LOSSES
from perce_mini.runtime import checkpoint, cli, distributed
from perce_mini.runtime.cli import COUNT, COUNT_OR_NONE, number
from perce_mini.runtime.errors import UserError
from perce_mini.runtime.files import sha256
from perce_mini.runtime.models import fingerprint, is_pretrained
from perce_mini.runtime.run import SAVE_EVERY, check_same_run
from perce_mini.scoring import MAX_NEW_TOKENS
from perce_mini.trainer import Settings

DATA = Path(os.path.relpath(Path(__file__).resolve().parents[2] / "data"))
DEFAULT_DATA, SHIPPED_BASE = DATA / "personas", DATA / "base"
LR_PRETRAINED, LR_LORA = 2e-5, 2e-4  # default learning rates for real models: all weights, LoRA

# Flags shared with eval.py.
CONTRAST = {
    "choices": CONTRASTS,
    "default": "none",
    "help": "profile in the plain view: none, or a stranger's",
}
NEW_TOKENS = {
    "type": COUNT_OR_NONE,
    "default": MAX_NEW_TOKENS,
    "metavar": "N",
    "help": "maximum length of generated texts in tokens; 0 turns generation off",
}
EVAL_BATCH = {
    "type": COUNT,
    "metavar": "N",
    "help": "batch size for scoring; it also affects the sampled texts (default: 32, or 8 for a"
    " pretrained model)",
}


def parse_train_args(description):
    """Parse and check the flags. Adds args.start (the folder to start from) and args.folders
    ({loss: run folder})."""
    p = cli.Parser(description=description)
    add_run_flags(p)
    add_optimisation_flags(p.add_argument_group("optimisation"))
    add_model_flags(p.add_argument_group("real models (--init with a Hugging Face folder)"))
    add_machine_flags(p.add_argument_group("machine and scoring"))
    args = p.parse_args()
    validate_args(p, args)
    return args


def add_run_flags(p):
    help = "how to weight the response tokens; several losses are trained one after another"
    p.add_argument("--loss", nargs="+", choices=LOSSES, default=["perce"], help=help)
    clip = number(float, -1e6, 1e6)
    help = "minimum weight, in nats (not used by ce)"
    p.add_argument("--clip-min", type=clip, default=CLIP_MIN, metavar="M", help=help)
    help = "maximum weight, in nats (not used by ce)"
    p.add_argument("--clip-max", type=clip, default=CLIP_MAX, metavar="M", help=help)
    help = "fraction of the steps that use CE before the loss takes over; 0.5 is safer than 0 for"
    help += " texts of a kind that is new to the model"
    p.add_argument("--ce-first", type=number(float, 0, 1), default=0.0, metavar="F", help=help)
    help = "folder with train.jsonl and, optionally, val.jsonl, test.jsonl and base.jsonl"
    help += " (default: data/personas, generated on first use)"
    p.add_argument("--data", type=Path, default=DEFAULT_DATA, metavar="DIR", help=help)
    help = "run folder or Hugging Face folder to start from"
    help += " (default: data/base; for your own data, out/base-NAME, trained on first use)"
    p.add_argument("--init", type=Path, metavar="DIR", help=help)
    p.add_argument("--contrast", **CONTRAST)
    help = "output folder (default: out/LOSS); with several losses, their parent (default: out)"
    p.add_argument("--out", type=Path, metavar="DIR", help=help)
    again = p.add_mutually_exclusive_group()
    help = "resume an interrupted run in --out, if there is one"
    again.add_argument("--resume", action="store_true", help=help)
    again.add_argument("--overwrite", action="store_true", help="replace the run in --out")


def add_optimisation_flags(g):
    usual = Settings()
    length = g.add_mutually_exclusive_group()
    length.add_argument("--steps", type=COUNT, help=f"optimisation steps (default: {usual.steps})")
    length.add_argument(
        "--epochs", type=number(float, 1e-6, 1e4), help="passes over the data (replaces --steps)"
    )
    help = f"peak learning rate of AdamW (default: {usual.lr:g}; for a Hugging Face model"
    help += f" {LR_PRETRAINED:g}, or {LR_LORA:g} with LoRA)"
    g.add_argument("--lr", type=cli.RATE, help=help)
    help = "fraction of the steps used for learning-rate warm-up"
    g.add_argument("--warmup", type=number(float, 0, 1), default=usual.warmup, help=help)
    help = "examples per micro-batch"
    g.add_argument("--batch-size", type=COUNT, default=usual.batch_size, help=help)
    help = "micro-batches per optimisation step"
    g.add_argument("--grad-accum", type=COUNT, default=usual.grad_accum, help=help)
    g.add_argument("--top-k", **cli.TOP_K, default=usual.top_k)
    g.add_argument("--examples", type=COUNT, help="number of rows to train on (default: all)")
    help = "seed for the batch order, LoRA and sampled texts"
    g.add_argument("--seed", type=cli.SEED, default=0, help=help)
    g.add_argument("--save-every", type=COUNT, default=SAVE_EVERY, help="steps between checkpoints")


def add_model_flags(g):
    help = "rank of LoRA adapters; 0 trains all weights"
    g.add_argument("--lora-rank", type=number(int, 0, 4096), default=0, metavar="R", help=help)
    help = "maximum sequence length in tokens (default: the model's limit, at most 5000)"
    g.add_argument("--block-size", type=COUNT, metavar="N", help=help)
    help = "JSON prompt template: start, item, query, end (default: the model's chat format)"
    g.add_argument("--template", type=Path, metavar="FILE", help=help)
    help = "recompute activations in the backward pass: slower, but uses less memory"
    g.add_argument("--recompute", action="store_true", help=help)


def add_machine_flags(g):
    g.add_argument("--device", **cli.DEVICE)
    help = "torch.compile the blocks: slower start, faster steps"
    g.add_argument("--compile", action="store_true", help=help)
    help = "number of held-out examples to score; 0 skips scoring"
    g.add_argument("--eval-examples", type=COUNT_OR_NONE, default=120, metavar="N", help=help)
    g.add_argument("--eval-batch-size", **EVAL_BATCH)
    g.add_argument("--max-new-tokens", **NEW_TOKENS)
    g.add_argument("--temperature", **cli.TEMPERATURE)


def validate_args(p, args):
    """Reject contradictory flags, and add the values derived from the flags."""
    if not args.clip_min <= args.clip_max:
        p.error(f"--clip-min {args.clip_min} is above --clip-max {args.clip_max}")
    if (args.template or args.block_size) and not args.init:
        p.error("--template and --block-size need --init with a pretrained model")
    args.template = args.template and hf.read_template(args.template)
    if os.path.realpath(args.data) == os.path.realpath(DEFAULT_DATA):
        args.data = DEFAULT_DATA
    default_base = SHIPPED_BASE if args.data == DEFAULT_DATA else base.base_folder(args.data)
    args.start = args.init or default_base
    parent = args.out or Path("out")
    args.folders = {loss: parent / loss for loss in args.loss}  # one run folder per loss
    if args.out and len(args.loss) == 1:
        args.folders = {args.loss[0]: args.out}
    for out in args.folders.values():
        if os.path.realpath(out) == os.path.realpath(args.start):
            p.error(f"--out {out} is the model to start from: choose another folder")
        if hf.is_folder(out):
            p.error(f"--out {out} contains a Hugging Face model: choose another folder")


# ---------------------------------------------------------------- the runs that the flags describe


def make_settings(args, loss, n_rows, pretrained, hashes):
    """Make the Settings of a run from the flags, the data and the model."""
    micro_batches = args.grad_accum * distributed.world_size()
    steps = args.steps or Settings.steps
    if args.epochs:
        per_epoch = steps_per_epoch(n_rows, args.batch_size, micro_batches)
        steps = math.ceil(args.epochs * per_epoch)
    lr = Settings.lr
    if pretrained:
        lr = LR_LORA if args.lora_rank else LR_PRETRAINED
    flags = ["clip_min", "clip_max", "contrast", "top_k", "lora_rank"]
    flags += ["warmup", "batch_size", "grad_accum", "seed"]
    return Settings(
        **{name: getattr(args, name) for name in flags},
        loss=loss,
        ce_first=0.0 if loss == "ce" else args.ce_first,
        lr=args.lr or lr,
        steps=steps,
        processes=distributed.world_size(),
        data=str(args.data),
        examples=n_rows,
        init=str(args.start),
        template=json.dumps(args.template) if args.template else "",
        **hashes,
    )


def find_runs(args, n_rows):
    """Return {loss: (Settings, checkpoint of an existing run or None)}.

    Raises UserError if a folder already contains a different run, or an unfinished run without
    --resume.
    """
    runs = {}
    hashes = {"data_sha256": sha256(args.data / "train.jsonl")}
    hashes["init_sha256"] = fingerprint(args.start)  # takes a while for a large model
    for loss, out in args.folders.items():
        exists = (out / "checkpoint.pt").exists() and not args.overwrite
        state = checkpoint.read(out) if exists else None
        pretrained = "pattern" in state["tokenizer"] if state else is_pretrained(args.start)
        settings = make_settings(args, loss, n_rows, pretrained, hashes)
        if state:
            check_same_run(state, settings, out)
            if state["step"] < settings.steps and not args.resume:
                done = f"{out}: this run stopped after {state['step']} of {settings.steps} steps"
                advice = "add --resume to continue it, or --overwrite to start over"
                raise UserError(f"{done}: {advice}")
        runs[loss] = settings, state
    return runs
