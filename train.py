"""Fine-tune a small GPT on what people wrote, given what they wrote before.

    python train.py --loss perce

This generates the default data (data/personas), fine-tunes the included base model (data/base),
saves the result in out/perce, scores held-out users before and after, and shows what the model
writes for two of them. `--loss ce perce` trains with each loss in turn and compares the two.
"""

import torch

from data.personas import prepare
from perce_mini import base, heatmap, tables
from perce_mini.contrast import add_strangers
from perce_mini.dataset import encode_rows
from perce_mini.rows import held_out_file, read_examples, subsample
from perce_mini.runtime import checkpoint, cli, distributed, lora
from perce_mini.runtime.device import pick_device
from perce_mini.runtime.errors import UserError
from perce_mini.runtime.files import sha256, write_text_atomic
from perce_mini.runtime.flags import DEFAULT_DATA, SHIPPED_BASE, find_runs, parse_train_args
from perce_mini.runtime.models import load_model
from perce_mini.runtime.run import REPORTS, check_folder, fit
from perce_mini.sample import show_two_users
from perce_mini.scoring import evaluate

FEW_ROWS = 1000  # a base model trained on fewer rows is useless


# --------------------------------------------------------------------------------- what a run needs


def load_rows(args):
    """Return the rows to train on and the rows to score, generating the default data if needed."""
    if args.data == DEFAULT_DATA and distributed.rank() == 0:
        prepare.write_once(DEFAULT_DATA)
    distributed.barrier()
    if not args.data.is_dir():
        raise UserError(f"no such folder: {args.data}")
    train_file = args.data / "train.jsonl"
    file = held_out_file(args.data) if args.eval_examples else None
    print(f"training on {train_file}, scoring {file.name if file else 'nothing'}", flush=True)
    rows = subsample(read_examples(train_file), args.examples)
    held_out = subsample(read_examples(file), args.eval_examples) if file else []
    if args.contrast == "stranger":
        add_strangers(rows)
        add_strangers(held_out)
    return rows, held_out


def dtype_of(args, device):
    """Return bfloat16 for weights that LoRA freezes on a GPU, and float32 otherwise."""
    return torch.bfloat16 if args.lora_rank and device.type == "cuda" else torch.float32


def load_start(args, device):
    """Load the model to start from: --init, or the base model for the data."""
    if args.init:
        dtype = dtype_of(args, device)
        return load_model(args.init, device, dtype, args.template, args.block_size)
    if not args.start.is_dir():
        raise UserError(f"{args.start} is missing: restore it with git checkout {args.start}")
    start = checkpoint.load(args.start, device)
    file = base.base_file(args.data)
    if args.data != DEFAULT_DATA and start.settings.data_sha256 != sha256(file):
        advice = f"delete {args.start} to train a new base model"
        raise UserError(f"{args.start} was not trained on the current rows of {file}: {advice}")
    return start


# ------------------------------------------------------------------------------------------ the run


def train(args, settings, state, out, rows, held_out, device):
    """Fine-tune and return (model, tokenizer). state: the checkpoint to continue from, or None."""
    dtype = dtype_of(args, device)
    model, tokenizer, _ = checkpoint.load(out, device, dtype) if state else load_start(args, device)
    torch.manual_seed(args.seed)
    if not state:
        lora.merge(model)  # in case this run starts from another LoRA run
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
    """Score the held-out rows and return the records from scoring.evaluate."""
    n = args.max_new_tokens
    examples = encode_rows(rows, tokenizer, model.config.block_size, args.top_k, n)
    how = n, args.temperature, args.seed, f"score {desc}", args.eval_batch_size
    return evaluate(model, tokenizer, examples, *how)


def write_reports(args, out, scored, tokenizers):
    """Write a run's results.json, predictions.jsonl and heat.html. scored: {folder: records}."""
    results, predictions, heat = (out / name for name in REPORTS)
    tables.write_scores(results, scored)
    if args.max_new_tokens:
        tables.write_predictions(predictions, scored)
    write_text_atomic(heat, heatmap.page(scored, tokenizers, args.contrast))


def train_base_model(args, rows, held_out, device):
    """Train a base model on the user's own data and save it in args.start."""
    print(f"training a base model for {args.data} first, saving it in {args.start}")
    if len(rows) < FEW_ROWS:
        advice = "start from a pretrained model with --init"
        print(f"Warning: it will learn next to nothing from {len(rows)} rows; {advice}")
    how = base.SETTINGS, base.SHAPE, base.VOCAB_SIZE
    must_fit = [(rows, 0), (held_out, args.max_new_tokens)]
    base.train_base(args.data, args.start, device, *how, must_fit)


def main():
    args = parse_train_args(__doc__)
    device = distributed.init_distributed(pick_device(args.device))
    rows, held_out = load_rows(args)
    if not args.init and args.start != SHIPPED_BASE and not base.is_finished(args.start):
        train_base_model(args, rows, held_out, device)

    models = {}
    for loss, (settings, state) in find_runs(args, len(rows)).items():
        out = args.folders[loss]
        print(f"fine-tuning {args.start} with {loss} on {device}, saving to {out}", flush=True)
        models[loss] = train(args, settings, state, out, rows, held_out, device)
        models[loss][0].cpu()  # free the GPU's memory for the next run
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
    tables.warn_of_other_scripts(scored[str(out)])
    both = {row["user"] for row in rows} & {row["user"] for row in held_out}
    if both:
        tables.say(f"Note: {len(both)} of the held-out users also wrote training rows.")
    if args.max_new_tokens:
        n, top_k = args.max_new_tokens, args.top_k
        show_two_users(model.to(device), tokenizer, held_out, n, top_k)
    print(f"\n{out}/heat.html shows the PIR of every token. To see more texts:")
    print(f"python -m perce_mini.sample {out}")


if __name__ == "__main__":
    cli.run(main)
