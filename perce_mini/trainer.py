"""The training loop: one optimisation step, the learning rate, and a run that can stop and go on."""

import json
import math
import sys
import time
from pathlib import Path

import torch
from tqdm import tqdm

from perce_mini import checkpoint, cli
from perce_mini.dataset import collate, size, training_steps
from perce_mini.percontrast import LOSSES, project, token_entropies, token_logprobs, weighted_nll


def backward(model, batches, settings, device):
    """The gradient of one optimisation step, summed over its micro-batches. Returns the step's figures."""
    n_tokens = sum(len(batch.labels) for batch in batches)
    low, high = settings["clip_min"], settings["clip_max"]
    total = torch.zeros(4, device=device)  # loss, sum of weights, tokens at the floor, at the cap
    for batch in batches:
        logp_plain = entropy = None
        with cli.autocast(device):
            if settings["loss"] == "perce":  # the method's only extra work: one forward of the shorter view
                with torch.no_grad():
                    logp_plain = project(token_logprobs, model.states(batch.plain), model.head, batch.labels)
            states = model.states(batch.persona)
            logp_persona = project(token_logprobs, states, model.head, batch.labels)
            if settings["loss"] == "entce":
                with torch.no_grad():
                    entropy = project(token_entropies, states, model.head, batch.labels)
        weights = LOSSES[settings["loss"]](logp_persona, logp_plain, entropy, low, high)
        loss = weighted_nll(logp_persona, weights, n_tokens)
        loss.backward()
        total += torch.stack([loss.detach(), weights.sum(), (weights <= low).sum(), (weights >= high).sum()])
    loss, weight, floor, cap = total.tolist()
    return {"loss": loss, "weight": weight / n_tokens, "floor": floor / n_tokens, "cap": cap / n_tokens}


def learning_rate(step, settings):
    """Linear from 0 to the peak and back to 0."""
    rise = settings["warmup"] * settings["steps"]
    return settings["lr"] * min((step + 1) / max(rise, 1), (settings["steps"] - step) / max(settings["steps"] - rise, 1))


def fit(model, tokenizer, examples, out, settings, device, save_every, state=None):
    """Train `model` on Examples and keep the run in `out`. state: the checkpoint to go on from, or None."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings["lr"], betas=(0.9, 0.95), weight_decay=0.01)
    first = 0
    if state:
        checkpoint.restore(state, optimizer)
        first = state["step"]
    out.mkdir(parents=True, exist_ok=True)
    log = (out / "log.jsonl").read_text().splitlines()[:first] if first else []
    bar = tqdm(total=settings["steps"], initial=first, desc=str(out), unit="step", dynamic_ncols=True)
    batches = training_steps(examples, settings["batch_size"], settings["grad_accum"], settings["seed"], first)
    saved = first
    try:
        for step in range(first, settings["steps"]):
            start, micro = time.perf_counter(), next(batches)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, settings)
            optimizer.zero_grad()
            figures = backward(model, [collate(examples, device) for examples in micro], settings, device)
            figures["grad_norm"] = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0).item()
            if not math.isfinite(figures["loss"] + figures["grad_norm"]):
                raise cli.RunError(f"the loss is {figures['loss']} and the gradient norm {figures['grad_norm']} at step {step + 1}:"
                                   f" lower --lr (now {settings['lr']:g}); {kept(out, saved)}")
            optimizer.step()
            figures["tokens_s"] = sum(size(e) for batch in micro for e in batch) / (time.perf_counter() - start)
            log.append(json.dumps({"step": step + 1, "lr": group["lr"], **figures}))
            bar.set_postfix_str("loss {loss:.3f}, weight {weight:.2f}, floor {floor:.0%}, cap {cap:.0%}, grad {grad_norm:.2f},"
                                " {tokens_s:.0f} tok/s".format(**figures), refresh=False)
            bar.update()
            if (step + 1) % save_every == 0 or step + 1 == settings["steps"]:
                checkpoint.save(out, model, tokenizer, step + 1, settings, optimizer)
                checkpoint.replace_file(out / "log.jsonl", lambda path: Path(path).write_text("\n".join(log) + "\n"))
                saved = step + 1
    except KeyboardInterrupt:
        print(f"\n{kept(out, saved)}", file=sys.stderr)
        raise
    finally:
        bar.close()


def kept(out, saved):
    return f"{out} keeps step {saved}, --resume goes on from there" if saved else "nothing was saved yet"
