"""Train with checkpoints in a run folder. A run can be interrupted at any time and resumed."""

import signal
import sys
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch
from tqdm import tqdm

from perce_mini.dataset import training_steps
from perce_mini.runtime import checkpoint, distributed
from perce_mini.runtime.errors import UserError
from perce_mini.runtime.files import check_writable
from perce_mini.trainer import NotFiniteError, make_optimizer, training_step

SAVE_EVERY = 50  # steps
REPORTS = ["results.json", "predictions.jsonl", "heat.html"]  # train.py adds them to the folder
BAR = "{desc}  {n_fmt}/{total_fmt}  {elapsed} + {remaining}"  # fits 80 columns


def check_same_run(state, settings, out):
    """Raise UserError if the settings differ from those the run was started with."""
    for name, value in asdict(settings).items():
        old = getattr(state["settings"], name)
        if old == value or name == "data":  # data_sha256 tells whether the rows changed
            continue
        if name == "init_sha256" and not value:  # the model no longer exists
            continue
        what = f"was trained with {name} {old!r}, not {value!r}"
        if name == "data_sha256":
            what = "was trained on different rows"
        if name == "init_sha256":
            what = f"started from a model in {settings.init} that has changed since"
        raise UserError(f"{out} {what}: undo this change, or use another --out, or --overwrite")


def check_folder(out):
    """Raise UserError if a run cannot be written to `out` or would replace something else."""
    for name in ["checkpoint.pt", "log.jsonl", *REPORTS]:
        check_writable(out / name)
        if (out / name).exists() and not (out / "checkpoint.pt").exists():
            raise UserError(f"{out} contains {name} but no run: choose another --out")


def fit(model, tokenizer, examples, settings, out, save_every=SAVE_EVERY, state=None, keep=()):
    """Train `model` on Examples and save the run in the folder `out`.

    state: the checkpoint to resume from, or None. keep: steps after which a copy of the model is
    saved in out/step-N. Raises NotFiniteError. On Ctrl-C, the last completed step is saved before
    the run ends. Whatever ends the run, a message says which step is saved.
    """
    optimizer = make_optimizer(model, settings)
    first, log = (state["step"], state["log"]) if state else (0, [])
    if state:
        checkpoint.restore(state, optimizer)
    micro_batches = settings.grad_accum * settings.processes
    batches = training_steps(examples, settings.batch_size, micro_batches, settings.seed, first)
    is_first = distributed.rank() == 0
    how = {"bar_format": BAR, "dynamic_ncols": True, "disable": not is_first}
    bar = tqdm(total=settings.steps, initial=first, **how)
    saved = first
    try:
        with interrupt_after_step() as interrupted:
            for step in range(first, settings.steps):
                log.append(training_step(model, optimizer, next(batches), settings, step))
                bar.set_description_str(f"{out}  {progress(settings, log[-1])}", refresh=False)
                bar.update()
                done = step + 1
                if done % save_every == 0 or done == settings.steps or interrupted:
                    if is_first:
                        checkpoint.save(out, model, tokenizer, settings, done, log, optimizer)
                        for name in REPORTS:  # they describe an older checkpoint
                            Path(out, name).unlink(missing_ok=True)
                    saved = done
                if done in keep and is_first:
                    checkpoint.save(out / f"step-{done}", model, tokenizer, settings, done, log)
                if interrupted:
                    raise KeyboardInterrupt
    except NotFiniteError as error:
        advice = f"lower --lr (currently {settings.lr:g}) and train again"
        kept = f"step {saved} is saved in {out}" if saved else "nothing has been saved yet"
        raise NotFiniteError(f"{error}: {advice}; {kept}") from None
    except (KeyboardInterrupt, torch.OutOfMemoryError, OSError, UserError):
        if is_first:
            print(f"\n{saved_message(out, settings, saved)}", file=sys.stderr)
        raise
    finally:
        bar.close()
    distributed.barrier()  # wait until the first process has written the checkpoint


@contextmanager
def interrupt_after_step():
    """On Ctrl-C, let the current step finish so that it can be saved. A second one stops at once.

    Yields a list that is empty until Ctrl-C is pressed. With several processes, the first Ctrl-C
    stops at once, because otherwise they would have to agree on the last step.
    """
    interrupted = []

    def remember(signal_number, frame):
        if interrupted or distributed.world_size() > 1:
            raise KeyboardInterrupt
        interrupted.append(True)
        print("\nfinishing this step; press Ctrl-C again to stop at once", file=sys.stderr)

    previous = signal.signal(signal.SIGINT, remember)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, previous)


def progress(settings, line):
    """Summarise the last step for the progress bar."""
    if settings.loss == "ce":
        return f"loss {line['loss']:.3f}"
    return (
        f"loss {line['loss']:.3f}, mean weight {line['weight']:.2f}, {line['floor']:.0%} at floor"
    )


def saved_message(out, settings, saved):
    if not saved:
        return "nothing has been saved yet"
    how = "--resume continues" if settings.init else "the same command continues"  # a base model
    return f"step {saved} is saved in {out}; {how} from there"
