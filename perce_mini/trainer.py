"""The training loop: one optimisation step, the learning rate, and a run that can stop and go on.

Of the plumbing: `replicate` gives ids -> hidden of a model, which exchanges gradients where there are several
processes; `autocast` computes in bfloat16 on a GPU.
"""

import math
import sys
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass

import torch
from tqdm import tqdm

from perce_mini import checkpoint, distributed
from perce_mini.dataset import collate, size, training_steps
from perce_mini.device import autocast
from perce_mini.errors import UserError
from perce_mini.head import backward_in_slices, score_in_slices
from perce_mini.percontrast import CLIP_MAX, CLIP_MIN, loss_weights, token_entropies, token_logprobs, weighted_nll


@dataclass
class Settings:
    """How a run is trained and what it is made of. Kept in its checkpoint; --resume asks for the same again."""

    loss: str = "perce"  # one of percontrast.LOSSES
    clip_min: float = CLIP_MIN
    clip_max: float = CLIP_MAX
    lr: float = 1e-3  # peak learning rate of AdamW
    steps: int = 60  # optimisation steps
    warmup: float = 0.1  # share of the steps in which the rate rises
    weight_decay: float = 0.01
    batch_size: int = 16  # examples in a micro-batch
    grad_accum: int = 1  # micro-batches in an optimisation step, of each process
    processes: int = 1
    seed: int = 0  # of the order of batches, and of weights that start random
    data: str = ""  # folder of the rows
    data_sha256: str = ""  # of the file with the rows
    examples: int = 0  # rows trained on
    contrast: str = "none"  # whose profile stands in the plain view: nobody's, or a stranger's
    top_k: int = 4  # profile items in the prompt
    init: str = ""  # what the run started from; a base model starts from nothing
    template: str = ""  # parts of prompts given by --template, as JSON
    tokenizer: str = "bpe"
    vocab_size: int = 0  # as asked for
    lora_rank: int = 0  # 0: all weights are trained


class NotFiniteError(UserError):
    """The loss or the gradient is no number any more."""


# ------------------------------------------------------------------------------------- one optimisation step


def backward(hidden_of, model, batch, settings, n_tokens, weight_fn=None, scale=1):
    """Adds the gradient of one micro-batch's part of Eq. 8, times `scale`, to that of the parameters.

    hidden_of: ids -> hidden of `model` (distributed.replicate). n_tokens: the response tokens of the whole step.
    weight_fn(batch, logp_persona, logp_plain) -> (N,): another rule for the tokens' weights than that of the loss.
    Returns (4,): its part of the loss, the sum of the tokens' weights, how many lie at the floor and at the cap.
    """
    low, high, labels = settings.clip_min, settings.clip_max, batch.labels
    logp_plain = given = None
    tally = torch.zeros(4, device=labels.device)
    with autocast(labels.device):
        if settings.loss == "perce":  # the method's only extra work: one forward of the shorter view
            with torch.no_grad():
                hidden = model.hidden(batch.plain.ids).flatten(0, 1)[batch.plain.at]
            logp_plain = score_in_slices(token_logprobs, hidden, model.head, labels)
        hidden = hidden_of(batch.persona.ids).flatten(0, 1)[batch.persona.at]
        if weight_fn:
            logp_persona = score_in_slices(token_logprobs, hidden, model.head, labels)
            given = weight_fn(batch, logp_persona, logp_plain)

        def loss_of(logp, logits, at):
            if given is not None:
                weights = given[at]
            else:
                plain = None if logp_plain is None else logp_plain[at]
                entropy = token_entropies(logits, labels[at]) if settings.loss == "entce" else None
                weights = loss_weights(settings.loss, logp, plain, entropy, low, high)
            loss = weighted_nll(logp, weights, n_tokens)
            tally.add_(torch.stack([loss.detach(), weights.sum(), (weights <= low).sum(), (weights >= high).sum()]))
            return scale * loss

        backward_in_slices(loss_of, hidden, model.head, labels)
    return tally


def training_step(hidden_of, model, optimizer, micro_batches, settings, step, weight_fn=None):
    """One update of the parameters from lists of Examples. Returns its figures; raises NotFiniteError instead of it."""
    start, device, n_processes = time.perf_counter(), model.head.device, distributed.world_size()
    n_tokens = sum(len(e.response) for group in micro_batches for e in group)
    mine = micro_batches[distributed.rank() :: n_processes]
    scale = n_processes if mine else 0  # at the end of an epoch a process may be left without: its part is 0
    total, groups = torch.zeros(4, device=device), mine or micro_batches[:1]
    optimizer.zero_grad()
    for group in groups:
        exchange = n_processes == 1 or group is groups[-1]  # gradients are exchanged once, at last
        with nullcontext() if exchange else hidden_of.no_sync():
            tally = backward(hidden_of, model, collate(group, device), settings, n_tokens, weight_fn, scale)
        total += tally if mine else 0
    if n_processes > 1:
        torch.distributed.all_reduce(total)  # a sum
    loss, weight, floor, cap = total.tolist()
    grad_norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0).item()  # frozen ones have no gradient
    if not math.isfinite(loss + grad_norm):
        raise NotFiniteError(f"the loss is {loss} and the gradient norm {grad_norm} at step {step + 1}")
    optimizer.param_groups[0]["lr"] = learning_rate(step, settings)
    optimizer.step()
    seconds = time.perf_counter() - start
    return {
        "step": step + 1,
        "lr": optimizer.param_groups[0]["lr"],
        "loss": loss,
        "weight": weight / n_tokens,
        "floor": floor / n_tokens,
        "cap": cap / n_tokens,
        "grad_norm": grad_norm,
        "tokens_s": sum(size(e) for group in micro_batches for e in group) / seconds,
    }


def learning_rate(step, settings):
    """Linear up to the peak, and down towards 0."""
    rise = settings.warmup * settings.steps
    return settings.lr * min((step + 1) / max(rise, 1), (settings.steps - step) / max(settings.steps - rise, 1))


def make_optimizer(model, settings):
    trained = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.AdamW(trained, lr=settings.lr, betas=(0.9, 0.95), weight_decay=settings.weight_decay)


# ------------------------------------------------------------------------------------------------ the run

SAVE_EVERY = 50  # steps
PROGRESS = "{out}  loss {loss:.3f}, weight {weight:.2f} (floor {floor:.0%}, cap {cap:.0%})"
BAR = "{desc}  {n_fmt}/{total_fmt}  {elapsed} + {remaining}"  # 80 columns hold it, and the time that is left


def check_same_run(state, settings, out):
    """A run may only be resumed with the settings that it was started with. Raises UserError."""
    for name, value in asdict(settings).items():
        old = state["settings"].get(name, getattr(Settings, name))
        if old != value and name != "data":  # its hash tells more than its path
            asked = f"{name} {old}, not {str(value) or 'none'}"
            raise UserError(f"{out} was made with {asked}: give the same again, or another folder")


def fit(model, tokenizer, examples, settings, out, save_every=SAVE_EVERY, state=None, weight_fn=None):
    """Train `model` on Examples and keep the run in the folder `out`.

    state: the checkpoint to go on from, or None. weight_fn: as in `backward`.
    """
    optimizer, hidden_of = make_optimizer(model, settings), distributed.replicate(model)
    first, log = (state["step"], state["log"]) if state else (0, [])
    if state:
        checkpoint.restore(state, optimizer)
    saved = first
    how = "--resume" if settings.init else "the same command"  # a base model starts from nothing
    goes_on = f", {how} goes on from there"
    micro_batches = settings.grad_accum * settings.processes
    steps = training_steps(examples, settings.batch_size, micro_batches, settings.seed, first)
    quiet = distributed.rank() > 0
    bar = tqdm(desc=str(out), total=settings.steps, initial=first, bar_format=BAR, dynamic_ncols=True, disable=quiet)
    try:
        for step, groups in zip(range(first, settings.steps), steps):
            log.append(training_step(hidden_of, model, optimizer, groups, settings, step, weight_fn))
            bar.set_description_str(PROGRESS.format(out=out, **log[-1]), refresh=False)
            bar.update()
            if (step + 1) % save_every == 0 or step + 1 == settings.steps:
                if distributed.rank() == 0:
                    checkpoint.save(out, model, tokenizer, asdict(settings), step + 1, log, optimizer)
                saved = step + 1
    except NotFiniteError as error:
        raise NotFiniteError(f"{error}: lower --lr (now {settings.lr:g}) and train anew; {kept(out, saved)}") from None
    except (OSError, UserError) as error:  # a full disk
        raise UserError(f"{error}; {kept(out, saved, goes_on)}") from None
    except KeyboardInterrupt:
        if distributed.rank() == 0:
            print(f"\n{kept(out, saved, goes_on)}", file=sys.stderr)
        raise
    finally:
        bar.close()
    distributed.barrier()  # until the first process has written


def kept(out, saved, goes_on=""):
    return f"{out} keeps step {saved}{goes_on}" if saved else "nothing was saved yet"
