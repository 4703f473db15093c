"""Fine-tune a small GPT on what people wrote, given what they wrote before.

    python train.py --loss perce

From nothing this makes the default data (data/personas), trains a small base model once (out/base),
fine-tunes it (out/perce), scores held-out users and shows a table. What exists already is used as it is.
"""

import math
import os
import subprocess
import sys
import time
from pathlib import Path

import torch

from eval import show_samples, show_table, write_json, write_predictions
from perce_mini import base, checkpoint, cli, lora, parallel, pretrained
from perce_mini.dataset import CONTRASTS, encode_rows, evenly, held_out_file, read_examples
from perce_mini.model import GPT, GPTConfig
from perce_mini.percontrast import CLIP_MAX, CLIP_MIN, LOSSES
from perce_mini.scoring import evaluate
from perce_mini.tokenizer import SPECIAL
from perce_mini.trainer import check_same_run, fit

HERE = Path(__file__).resolve().parent
DEFAULT_DATA = Path(os.path.relpath(HERE / "data" / "personas"))
STEPS, MAX_NEW_TOKENS = 300, 128
LR, LR_PRETRAINED, LR_LORA = 4e-3, 2e-5, 2e-4
KEPT = ["loss", "clip_min", "clip_max", "contrast", "warmup", "batch_size", "grad_accum", "top_k", "lora_rank", "seed"]


def parse_args():
    p = cli.Parser(description=__doc__)
    p.add_argument("--loss", choices=LOSSES, default="perce", help="how response tokens are weighted")
    p.add_argument("--clip-min", type=float, default=CLIP_MIN, metavar="M", help="lowest weight, nats; not for ce")
    p.add_argument("--clip-max", type=float, default=CLIP_MAX, metavar="M", help="highest weight, nats; not for ce")
    p.add_argument("--data", type=Path, default=DEFAULT_DATA, metavar="DIR",
                   help="folder with train.jsonl, and val, test, base.jsonl where there are any"
                        " (default data/personas, made on first use)")  # fmt: skip
    p.add_argument("--init", type=Path, metavar="DIR",
                   help="run or Hugging Face folder to start from (default: the data's base model, out/base or"
                        " out/base-NAME, trained on first use)")  # fmt: skip
    p.add_argument("--contrast", choices=CONTRASTS, default="none",
                   help="what takes the persona's place in the plain view: nothing, or the profile of a stranger")
    p.add_argument("--out", type=Path, metavar="DIR", help="folder to write to (default out/LOSS)")
    p.add_argument("--resume", action="store_true", help="go on where the run in --out stopped")
    g = p.add_argument_group("optimisation")
    g.add_argument("--steps", type=int, help=f"optimisation steps (default {STEPS})")
    g.add_argument("--epochs", type=float, help="passes over the training examples, instead of --steps")
    g.add_argument("--lr", type=float, help=f"peak learning rate of AdamW (default {LR:g}; of a pretrained model"
                                            f" {LR_PRETRAINED:g}, with LoRA {LR_LORA:g})")  # fmt: skip
    g.add_argument("--warmup", type=float, default=0.1,
                   help="share of the steps in which the rate rises; then it falls to 0")
    g.add_argument("--batch-size", type=int, default=16, help="examples in a micro-batch")
    g.add_argument("--grad-accum", type=int, default=1, help="micro-batches in an optimisation step")
    g.add_argument("--top-k", type=int, default=4, help="profile items in the prompt, the best by BM25")
    g.add_argument("--examples", type=int, help="train on so many examples, taken evenly over the file (default all)")
    g.add_argument("--seed", type=int, default=0, help="order of the batches and sampling of text")
    g.add_argument("--save-every", type=int, default=50, help="steps between checkpoints")
    g = p.add_argument_group("base model (only where it is trained here)")
    g.add_argument("--base-steps", type=int, default=400, help="optimisation steps")
    g.add_argument("--tokenizer", help="bpe: learn one from the data (default); or gpt2, cl100k_base, ... by tiktoken")
    g.add_argument("--vocab-size", type=int, help=f"entries of the learned tokenizer (default {base.VOCAB_SIZE})")
    shape = {"block_size": "longest sequence, tokens", "n_layer": "blocks", "n_head": "query heads", "n_embd": "width",
             "n_kv_head": "key and value heads", "n_shifted": "key heads shifted by a token, see model.py"}  # fmt: skip
    for name, what in shape.items():
        g.add_argument("--" + name.replace("_", "-"), type=int, help=f"{what} (default {base.SHAPE[name]})")
    g = p.add_argument_group("pretrained models")
    g.add_argument("--lora-rank", type=int, default=0, metavar="R",
                   help="train a step of rank R beside frozen weights; 0: all weights")  # fmt: skip
    g.add_argument("--template", type=Path, metavar="FILE",
                   help="JSON with a prompt's start, item, query, end (default: plain text, or the model's chat form)")
    g.add_argument("--recompute", action="store_true",
                   help="keep less for the backward pass and compute it again: slower, with less memory")
    g = p.add_argument_group("machine")
    g.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default auto: the fastest there is)")
    g.add_argument("--compile", action="store_true", help="torch.compile the blocks: a slow start, faster steps")
    g = p.add_argument_group("scoring")
    g.add_argument("--eval-examples", type=int, default=120, help="held-out examples to score, 0 for none")
    g.add_argument("--temperature", type=float, default=0.4, help="of decoding; 0 takes the likeliest token")
    args = p.parse_args()
    for name in ["steps", "epochs", "lr", "batch_size", "grad_accum", "save_every", "examples", "base_steps",
                 "block_size", "n_layer", "n_head", "n_kv_head", "n_embd"]:  # fmt: skip
        if getattr(args, name) is not None and not 0 < getattr(args, name) < math.inf:
            p.error(f"--{name.replace('_', '-')} must be above 0")
    for name in ["top_k", "eval_examples", "temperature", "n_shifted", "lora_rank"]:
        if getattr(args, name) is not None and not 0 <= getattr(args, name) < math.inf:
            p.error(f"--{name.replace('_', '-')} must not be below 0")
    if args.steps and args.epochs:
        p.error("--steps and --epochs exclude each other")
    if not args.clip_min <= args.clip_max:
        p.error(f"--clip-min {args.clip_min} is above --clip-max {args.clip_max}")
    if not 0 <= args.warmup <= 1:
        p.error("--warmup is a share of the steps, from 0 to 1")
    if args.vocab_size is not None and args.vocab_size < 256 + len(SPECIAL):
        p.error(f"--vocab-size must be at least {256 + len(SPECIAL)}: the bytes and the control tokens")
    try:
        GPTConfig(1, **base.shape(args))
    except ValueError as error:
        p.error(str(error))
    args.out = args.out or Path("out") / args.loss
    return args


# ------------------------------------------------------------------------------- what a run needs first


def make_default_data(folder):
    """Run data/personas/prepare.py into `folder`."""
    subprocess.run([sys.executable, DEFAULT_DATA / "prepare.py", "--out", folder], check=True)


def read_data(args):
    """The rows to train on and the rows to score. Raises DataError, RunError."""
    if not args.data.is_dir():
        raise cli.RunError(f"{args.data}: --data takes a folder with train.jsonl in it")
    rows = read_examples(args.data / "train.jsonl")
    held_out = read_examples(held_out_file(args.data)) if args.eval_examples else []
    return evenly(rows, args.examples), evenly(held_out, args.eval_examples)


def base_folder(args):
    """Where the base model of the data lives: out/base, or out/base-NAME for data of one's own."""
    return Path("out/base" if args.data == DEFAULT_DATA else f"out/base-{args.data.resolve().name}")


# --------------------------------------------------------------------------------------------- the run


def seconds_an_example(model, length, device):
    """The time of a training step here, an example of `length` tokens."""
    ids = torch.zeros(max(1, 2048 // length), length, dtype=torch.long, device=device)
    seconds = 0
    for _ in range(3):  # the first ones warm up
        if seconds < 5:
            start = time.perf_counter()
            with cli.autocast(device):
                model(ids).float().logsumexp(-1).sum().backward()
            next(p for p in model.parameters() if p.requires_grad).grad.sum().item()  # waits for the device
            seconds = time.perf_counter() - start
    model.zero_grad()
    return seconds / len(ids)


def print_plan(args, init, make_data, device, model):
    """Say what this run will do and, from the speed of one step here, about how long that takes.

    model: what `init` holds, or None where that is yet to be trained.
    """
    model = model or GPT(GPTConfig(args.vocab_size or base.VOCAB_SIZE, **base.shape(args))).to(device)
    an_example = seconds_an_example(model, min(384, model.config.block_size), device)
    steps = args.steps or STEPS
    plan = [(f"make the default data in {args.data}", 5)] if make_data else []
    if not args.init and not base.is_finished(init, args.base_steps):
        seconds = args.base_steps * base.SETTINGS["batch_size"] * an_example
        plan.append((f"train the base model {init}: {args.base_steps} steps", seconds))
    length = f"{args.epochs:g} epochs" if args.epochs else f"{steps} steps"
    seconds = 0 if args.epochs else steps * args.batch_size * args.grad_accum * an_example
    plan.append((f"fine-tune {init} with {args.loss} into {args.out}: {length}", seconds))
    if args.eval_examples:
        plan.append((f"score {args.eval_examples} held-out examples", args.eval_examples * an_example))
    print(f"on {device}, with {model.n_parameters() / 1e6:.2f} M parameters:")
    for i, (what, seconds) in enumerate(plan, 1):
        duration = f"{math.ceil(seconds / 10) * 10} s" if seconds < 90 else f"{seconds / 60:.0f} min"
        print(f"  {i}. {what}" + (f" (about {duration})" if seconds else ""))


def main():
    args = parse_args()
    device = parallel.join(cli.pick_device(args.device))
    init = args.init or base_folder(args)
    make_data = args.data == DEFAULT_DATA and not (args.data / "test.jsonl").exists()  # the last to be written
    if not make_data:
        rows, held_out = read_data(args)
    template = pretrained.read_template(args.template) if args.template else None
    frozen = torch.bfloat16 if args.lora_rank and device.type == "cuda" else torch.float32
    resumed = checkpoint.load(args.out, device) if args.resume else None
    given = resumed or (pretrained.load_any(init, device, frozen, template, args.block_size) if args.init else None)
    print_plan(args, init, make_data, device, given and given[0])
    parallel.wait()  # all have looked at what is there

    if make_data:
        if parallel.rank() == 0:
            make_default_data(args.data)
        parallel.wait()
        rows, held_out = read_data(args)
    if not args.init and not base.is_finished(init, args.base_steps):
        base_file = args.data / "base.jsonl"
        base.make(args, init, read_examples(base_file) if base_file.exists() else rows, device)

    model, tokenizer, state = given or checkpoint.load(init, device)
    base.check_flags(args, model, state["settings"], init)
    encode = lambda *what: encode_rows(*what, contrast=args.contrast)
    examples = encode(rows, tokenizer, model.config.block_size, args.top_k)
    held_out = encode(held_out, tokenizer, model.config.block_size, args.top_k, MAX_NEW_TOKENS)
    an_epoch = math.ceil(math.ceil(len(examples) / args.batch_size) / (args.grad_accum * parallel.world()))
    known = {name: state["settings"][name] for name in ["tokenizer", "vocab_size"]}
    usual = LR if known["tokenizer"] != "pretrained" else LR_LORA if args.lora_rank else LR_PRETRAINED
    settings = known | {name: getattr(args, name) for name in KEPT} | {
        "lr": args.lr or usual, "steps": math.ceil(args.epochs * an_epoch) if args.epochs else args.steps or STEPS,
        "examples": len(examples), "data": str(args.data), "init": str(init),
        "processes": parallel.world()}  # fmt: skip
    if resumed:
        check_same_run(state, settings, args.out)
    torch.manual_seed(args.seed)
    if not resumed:
        lora.merge(model)  # what it may have of an earlier run
        if args.lora_rank:
            lora.add(model, args.lora_rank)
    model.recompute = args.recompute
    if args.compile:
        model.compile_blocks()
    fit(model, tokenizer, examples, args.out, settings, device, args.save_every, state if resumed else None)

    rank = parallel.rank()
    parallel.leave()
    if rank:
        return
    written = [args.out / "checkpoint.pt", args.out / "tokenizer.json", args.out / "log.jsonl"]
    if held_out:
        records = evaluate(model, tokenizer, held_out, device, MAX_NEW_TOKENS, args.temperature, args.seed)
        runs = {str(args.out): records}
        for name, write in [("results.json", write_json), ("predictions.jsonl", write_predictions)]:
            write(args.out / name, runs)
            written.append(args.out / name)
        show_table(runs, ["rouge_l", "logp", "logp_plain", "personal_accuracy", "contrast_f1"])
        show_samples(runs, 1)
    print("\nwrote", *written)


if __name__ == "__main__":
    cli.run(main)
