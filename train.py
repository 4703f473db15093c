"""Fine-tune a small GPT on what people wrote, given what they wrote before.

    python train.py --loss perce

This generates the default data (data/personas), fine-tunes the small base model that comes with the
project (data/base) into out/perce, scores held-out users before and after, and shows what the model
writes for two of them. `--loss ce perce` trains with both losses, one after the other, and compares
them.
"""

import json
import math

import torch

from data.personas import prepare
from perce_mini import base, heatmap, tables
from perce_mini.contrast import add_strangers
from perce_mini.dataset import encode_rows, held_out_file, read_examples, steps_per_epoch, subsample
from perce_mini.runtime import checkpoint, cli, distributed, lora
from perce_mini.runtime.device import pick_device
from perce_mini.runtime.errors import UserError
from perce_mini.runtime.files import sha256, write_text_atomic
from perce_mini.runtime.flags import (
    DEFAULT_DATA,
    LR_LORA,
    LR_PRETRAINED,
    SHIPPED_BASE,
    parse_train_args,
)
from perce_mini.runtime.models import fingerprint, is_pretrained, load_model
from perce_mini.runtime.run import REPORTS, check_folder, check_same_run, fit
from perce_mini.sample import show_two_users_and_nobody
from perce_mini.scoring import evaluate
from perce_mini.trainer import Settings

FEW_ROWS = 1000  # with fewer a base model of one's own is useless


# --------------------------------------------------------------------------------- what a run needs


def load_rows(args):
    """The rows to train on and the rows to score. Generates the default data on first use."""
    if args.data == DEFAULT_DATA and distributed.rank() == 0:
        prepare.write_once(DEFAULT_DATA)
    distributed.barrier()
    if not args.data.is_dir():
        raise UserError(f"no such folder: {args.data}")
    train_file = args.data / "train.jsonl"
    if args.eval_examples:
        split = args.eval_split
        file = args.data / f"{split}.jsonl" if split else held_out_file(args.data)
        print(f"training on {train_file}, scoring {file.name}", flush=True)
        held_out = subsample(read_examples(file), args.eval_examples)
    else:
        print(f"training on {train_file}", flush=True)
        held_out = []
    rows = subsample(read_examples(train_file), args.examples)
    if args.contrast == "stranger":
        add_strangers(rows)
        add_strangers(held_out)
    return rows, held_out


def dtype_of(args, device):
    """The weights that LoRA freezes do not need float32 on a GPU."""
    return torch.bfloat16 if args.lora_rank and device.type == "cuda" else torch.float32


def load_start(args, device):
    """The model that a run starts from: --init, or the base model of the data."""
    if args.init:
        dtype = dtype_of(args, device)
        return load_model(args.init, device, dtype, args.template, args.block_size)
    if not args.start.is_dir():
        raise UserError(f"{args.start} is missing: git checkout {args.start}")
    start = checkpoint.load(args.start, device)
    file = base.base_file(args.data)
    if args.data != DEFAULT_DATA and start.settings.data_sha256 != sha256(file):
        advice = "remove that folder to train a new base model"
        raise UserError(f"{args.start} was not trained on the rows that {file} holds now: {advice}")
    return start


def make_settings(args, loss, n_rows, pretrained):
    """The Settings of a run: the flags, and what follows from the data and the model."""
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
        lr=args.lr or lr,
        steps=steps,
        processes=distributed.world_size(),
        data=str(args.data),
        data_sha256=sha256(args.data / "train.jsonl"),
        examples=n_rows,
        init=str(args.start),
        init_sha256=fingerprint(args.start),
        template=json.dumps(args.template) if args.template else "",
    )


# ------------------------------------------------------------------------------------------ the run


def find_runs(args, n_rows):
    """{loss: (Settings, checkpoint of an existing run or None)}.

    Raises UserError up front if a folder already holds a different or an unfinished run.
    """
    runs = {}
    for loss, out in args.folders.items():
        exists = (out / "checkpoint.pt").exists() and not args.overwrite
        must_exist = args.resume and len(args.folders) == 1  # of several, later ones may be missing
        state = checkpoint.read(out) if exists or must_exist else None
        pretrained = "pattern" in state["tokenizer"] if state else is_pretrained(args.start)
        settings = make_settings(args, loss, n_rows, pretrained)
        if state:
            check_same_run(state, settings, out)
            if state["step"] < settings.steps and not args.resume:
                done = f"{out} holds {state['step']} of {settings.steps} steps of this run"
                advice = "add --resume to continue it, or --overwrite to start again"
                raise UserError(f"{done}: {advice}")
        runs[loss] = settings, state
    return runs


def train(args, settings, state, out, rows, held_out, device):
    """Fine-tune and return (model, tokenizer). state: the checkpoint to continue from, or None."""
    dtype = dtype_of(args, device)
    model, tokenizer, _ = checkpoint.load(out, device, dtype) if state else load_start(args, device)
    torch.manual_seed(args.seed)
    if not state:
        lora.merge(model)  # the adapters of the run that this one starts from, if any
        if args.lora_rank:
            lora.add(model, args.lora_rank)
    if args.lora_rank:
        n_trained = sum(p.numel() for p in lora.adapters(model).values())
        print(f"training {n_trained:,} of {model.n_parameters():,} parameters", flush=True)
    model.recompute = args.recompute
    if args.compile:
        model.compile_blocks()
    block_size = model.config.block_size
    encode_rows(held_out, tokenizer, block_size, args.top_k, args.max_new_tokens)  # fail early
    examples = encode_rows(rows, tokenizer, block_size, args.top_k)
    check_folder(out)
    fit(model, tokenizer, examples, settings, out, args.save_every, state)
    return model, tokenizer


def score(args, model, tokenizer, rows, desc):
    """The records of scoring.evaluate for the held-out rows."""
    n = args.max_new_tokens
    examples = encode_rows(rows, tokenizer, model.config.block_size, args.top_k, n)
    how = n, args.temperature, args.seed, f"score {desc}", args.eval_batch_size
    return evaluate(model, tokenizer, examples, *how)


def write_reports(args, out, scored, tokenizers):
    """Write results.json, predictions.jsonl and heat.html of a run. scored: {folder: records}."""
    results, predictions, heat = (out / name for name in REPORTS)
    tables.write_scores(results, scored)
    if args.max_new_tokens:
        tables.write_predictions(predictions, scored)
    write_text_atomic(heat, heatmap.page(scored, tokenizers, args.contrast))


def main():
    args = parse_train_args(__doc__)
    device = distributed.init_distributed(pick_device(args.device))
    rows, held_out = load_rows(args)
    if not args.init and args.start != SHIPPED_BASE and not base.is_finished(args.start):
        print(f"training a base model for {args.data} into {args.start} first")
        if len(rows) < FEW_ROWS:
            advice = "start from a pretrained model with --init"
            print(f"Warning: from {len(rows)} rows it learns next to nothing; {advice}")
        must_fit = [(rows, 0), (held_out, args.max_new_tokens)]
        base.train_base(args.data, args.start, device, must_fit=must_fit)

    models = {}
    for loss, (settings, state) in find_runs(args, len(rows)).items():
        out = args.folders[loss]
        print(f"fine-tuning {args.start} with {loss} into {out} on {device}", flush=True)
        models[loss] = train(args, settings, state, out, rows, held_out, device)
        models[loss][0].cpu()  # leaves the GPU's memory to the next run
    rank = distributed.rank()
    distributed.shutdown()
    if rank or not held_out:
        return

    model, tokenizer, _ = load_start(args, device)
    scored = {str(args.start): score(args, model, tokenizer, held_out, "before")}
    tokenizers = {str(args.start): tokenizer}
    for loss, (model, tokenizer) in models.items():
        out = args.folders[loss]
        scored[str(out)] = score(args, model.to(device), tokenizer, held_out, f"after {loss}")
        model.cpu()
        tokenizers[str(out)] = tokenizer
        pair = [str(args.start), str(out)]
        write_reports(args, out, {name: scored[name] for name in pair}, tokenizers)
    tables.show_table(scored)
    if len(models) > 1:
        tables.show_verdicts({str(out): scored[str(out)] for out in args.folders.values()})
    tables.show_summary(out, scored[str(args.start)], scored[str(out)])
    tables.show_warnings(scored[str(out)], tokenizer.vocab_size)
    both = {row["user"] for row in rows} & {row["user"] for row in held_out}
    if both:
        tables.say(f"Warning: {len(both)} of the held-out users also wrote training rows.")
    if args.max_new_tokens:
        n, top_k = args.max_new_tokens, args.top_k
        show_two_users_and_nobody(model.to(device), tokenizer, held_out, n, top_k)
    print(f"\n{out}/heat.html shows the PIR of every token. To see more texts:")
    print(f"python -m perce_mini.sample {out}")


if __name__ == "__main__":
    cli.run(main)
