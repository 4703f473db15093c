"""The training loop: one optimisation step, the learning rate, and a run that can stop and go on."""

import json
import math
import sys
import time
from pathlib import Path

import torch
from tqdm import tqdm

from perce_mini import checkpoint, cli, parallel
from perce_mini.dataset import collate, size, training_steps
from perce_mini.percontrast import LOSSES, project, token_entropies, token_logprobs, weighted_nll


SHOWN = ("loss {loss:.3f}, weight {weight:.2f}, floor {floor:.0%}, cap {cap:.0%}, grad {grad_norm:.2f},"
         " {tokens_s:.0f} tok/s")  # fmt: skip


def backward(model, batches, settings, device, n_tokens, weigh=None):
    """The gradient of one optimisation step, summed over its micro-batches (and processes). Returns the step's figures.

    n_tokens: the response tokens of the whole step. weigh(batch, logp_persona, logp_plain) -> (N,): another rule for
    the weights than that of the loss.
    """
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
        if weigh:
            weights = weigh(batch, logp_persona.detach(), logp_plain)
        else:
            weights = LOSSES[settings["loss"]](logp_persona, logp_plain, entropy, low, high)
        loss = weighted_nll(logp_persona, weights, n_tokens)
        loss.backward()
        total += torch.stack([loss.detach(), weights.sum(), (weights <= low).sum(), (weights >= high).sum()])
    parallel.add_up([total])
    parallel.add_up_gradients(model)
    loss, weight, floor, cap = total.tolist()
    return {"loss": loss, "weight": weight / n_tokens, "floor": floor / n_tokens, "cap": cap / n_tokens}


def learning_rate(step, settings):
    """Linear from 0 to the peak and back to 0."""
    steps = settings["steps"]
    rise = settings["warmup"] * steps
    return settings["lr"] * min((step + 1) / max(rise, 1), (steps - step) / max(steps - rise, 1))


def check_same_run(state, settings, out):
    """Going on with a run makes sense only as the run that it was. Raises RunError."""
    for name, value in settings.items():
        if state["settings"].get(name) != value:
            raise cli.RunError(f"{out} was made with {name} {state['settings'].get(name)}, not {value}:"
                               " give the same again, or another folder")


def fit(model, tokenizer, examples, out, settings, device, save_every, state=None, weigh=None, watch=None):
    """Train `model` on Examples and keep the run in `out`. state: the checkpoint to go on from, or None.

    weigh: as in `backward`; watch(step): called whenever the run was saved.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=settings["lr"], betas=(0.9, 0.95), weight_decay=0.01)
    first = 0
    if state:
        checkpoint.restore(state, optimizer)
        first = state["step"]
    out.mkdir(parents=True, exist_ok=True)
    log = (out / "log.jsonl").read_text().splitlines()[:first] if first else []
    bar = tqdm(total=settings["steps"], initial=first, desc=str(out), unit="step", dynamic_ncols=True,
               disable=parallel.rank() > 0)  # fmt: skip
    micro_batches = settings["grad_accum"] * parallel.world()
    batches = training_steps(examples, settings["batch_size"], micro_batches, settings["seed"], first)
    saved = first
    try:
        for step in range(first, settings["steps"]):
            start, micro = time.perf_counter(), next(batches)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, settings)
            optimizer.zero_grad()
            n_tokens = sum(len(e.response) for batch in micro for e in batch)
            mine = [collate(batch, device) for batch in micro[parallel.rank() :: parallel.world()]]
            figures = backward(model, mine, settings, device, n_tokens, weigh)
            figures["grad_norm"] = torch.nn.utils.clip_grad_norm_(trained, 1.0).item()
            if not math.isfinite(figures["loss"] + figures["grad_norm"]):
                raise cli.RunError(f"the loss is {figures['loss']} and the gradient norm {figures['grad_norm']}"
                                   f" at step {step + 1}: lower --lr (now {settings['lr']:g}); {kept(out, saved)}")
            optimizer.step()
            figures["tokens_s"] = sum(size(e) for batch in micro for e in batch) / (time.perf_counter() - start)
            log.append(json.dumps({"step": step + 1, "lr": group["lr"], **figures}))
            bar.set_postfix_str(SHOWN.format(**figures), refresh=False)
            bar.update()
            if parallel.rank() == 0 and ((step + 1) % save_every == 0 or step + 1 == settings["steps"]):
                checkpoint.save(out, model, tokenizer, step + 1, settings, optimizer)
                checkpoint.replace_file(out / "log.jsonl", lambda path: Path(path).write_text("\n".join(log) + "\n"))
                saved = step + 1
                if watch:
                    watch(saved)
    except KeyboardInterrupt:
        if parallel.rank() == 0:
            print(f"\n{kept(out, saved)}", file=sys.stderr)
        raise
    finally:
        bar.close()
    parallel.wait()  # until the first process has written


def kept(out, saved):
    return f"{out} keeps step {saved}, --resume goes on from there" if saved else "nothing was saved yet"
