"""Walk through one example with every number: what PerContrast sees and what PerCE does.

    python -m perce_mini.walkthrough
    python -m perce_mini.walkthrough --row 7 --run out/perce

The walkthrough takes one row by a user whom the model has never read. It scores the response with
and without the persona, computes both losses by hand, takes one optimisation step with each, and
lets the model answer the query for two people and without a profile. That takes a few seconds.
perce_mini/README.md explains the output section by section.
"""

import copy
from pathlib import Path

import torch

from data.personas import prepare
from perce_mini.dataset import collate, encode_example
from perce_mini.percontrast import (
    CLIP_MIN,
    perce_loss,
    perce_weights,
    personal_influence_ratio,
    token_logprobs,
    weighted_nll,
)
from perce_mini.rouge import lcs_length, rouge_l, words
from perce_mini.rows import held_out_file, read_examples
from perce_mini.runtime import cli
from perce_mini.runtime.device import pick_device
from perce_mini.runtime.errors import UserError, printable
from perce_mini.runtime.models import load_model
from perce_mini.sample import show_answers, uses_colour
from perce_mini.tables import show_text
from perce_mini.trainer import Settings, training_step

PERSONAS = Path("data/personas")
DATA = PERSONAS / "familiar.jsonl"  # kinds of text that data/base has read: their form is known
DEFAULT_ROW = 37  # of this file: a short one with many personal tokens
SHOWN = 40  # maximum number of tokens in a table


def heading(letter, title):
    print(f"\n{f' {letter}. {title} ':=^80}\n")


def show_row(row, example):
    heading("A", "A row: what a user wrote, and what the user wrote before")
    show_text("query x", printable(row["query"]))
    show_text("response y", printable(row["response"]))
    for i in example.profile_indices:
        item = row["profile"][i]
        show_text(f"persona p, item {i + 1}", printable(f"{item['query']} -> {item['response']}"))


def show_prompts(example, tokenizer):
    heading("B", "Two views of the same response, as tokens")
    names = {i: name for name, i in tokenizer.special.items()}
    for view, prompt in [("persona", example.prompt), ("plain", example.plain_prompt)]:
        pieces = [names.get(i) or tokenizer.decode([i]) for i in prompt]
        head, tail = "|".join(pieces[:30]), "|".join(pieces[-8:])
        text = "|".join(pieces) if len(pieces) < 40 else f"{head} ... {tail}"
        sizes = f"{len(prompt)} + {len(example.response)} tokens"
        show_text(f"{view} view, {sizes}", printable(f"{text} [response]"))


@torch.no_grad()
def score(model, batch):
    """Return log P of the response tokens in both views, each (N,)."""
    logits = model(batch.persona.ids, batch.persona.target_positions)
    plain_logits = model(batch.plain.ids, batch.plain.target_positions)
    return token_logprobs(logits, batch.labels), token_logprobs(plain_logits, batch.labels)


def token_texts(example, tokenizer):
    """Return the response tokens for display: spaces become "_", and the end token is "end"."""
    texts = [printable(tokenizer.decode([i])).replace(" ", "_") for i in example.response[:-1]]
    return [*texts, "end"]


def show_tokens(example, tokenizer, logp, logp_plain):
    heading("C", "PIR and weight of every token")
    pir = personal_influence_ratio(logp, logp_plain)
    weights = perce_weights(pir)
    print("  token            P with P without      PIR   weight    -ln P   label")
    columns = torch.stack([logp.exp(), logp_plain.exp(), pir, weights, -logp], dim=1).tolist()
    rows = zip(token_texts(example, tokenizer), columns, example.personal)
    for text, (p, plain, ratio, weight, nll), personal in list(rows)[:SHOWN]:
        line = f"  {text:14} {p:8.4f}  {plain:8.4f} {ratio:+8.3f} {weight:8.3f} {nll:8.3f}"
        line += "   personal" if personal else ""
        print(f"\033[1;33m{line}\033[0m" if ratio > CLIP_MIN and uses_colour() else line)
    if len(logp) > SHOWN:
        print(f"  ... and {len(logp) - SHOWN} more")


def show_losses(logp, logp_plain):
    heading("D", "The two losses, computed by hand and with percontrast.py")
    weights = perce_weights(personal_influence_ratio(logp, logp_plain))
    at_floor = (weights <= CLIP_MIN).float().mean()
    weights, nll, n = weights.tolist(), (-logp).tolist(), len(logp)
    ce_terms = " + ".join(f"{x:.3f}" for x in nll[:4])
    perce_terms = " + ".join(f"{w:.3f} * {x:.3f}" for w, x in zip(weights[:3], nll))
    by_hand = sum(nll) / n, sum(w * x for w, x in zip(weights, nll)) / n
    print(f"CE    = ({ce_terms} + ...) / {n} = {by_hand[0]:.5f}")
    print(f"PerCE = ({perce_terms} + ...) / {n} = {by_hand[1]:.5f}")
    print(f"weighted_nll(logp, ones)     = {weighted_nll(logp, torch.ones(n)).item():.5f}")
    print(f"perce_loss(logp, logp_plain) = {perce_loss(logp, logp_plain).item():.5f}")
    print(f"\n{at_floor:.0%} of the weights are at the floor: on these tokens PerCE is 0.8 * CE.")


def show_gradient(model, batch, example, logp_plain):
    heading("E", "Where the gradient goes")
    personal = torch.tensor(example.personal)
    logits = model(batch.persona.ids, batch.persona.target_positions).detach().requires_grad_()
    logp = token_logprobs(logits, batch.labels)
    losses = {
        "CE": weighted_nll(logp, torch.ones(len(logp))),
        "PerCE": perce_loss(logp, logp_plain),
    }
    print(f"{personal.float().mean():.1%} of the response tokens are personal")
    for name, loss in losses.items():
        (gradient,) = torch.autograd.grad(loss, logits, retain_graph=True)
        size = gradient.norm(dim=-1)  # per token
        share = size[personal].sum() / size.sum()
        print(f"{name:5}: {share:.1%} of the gradient norm is on personal tokens")


def show_step(model, example, batch, tokenizer, logp, logp_plain):
    heading("F", "One optimisation step with each loss: the change in ln P")
    losses, changes = ["ce", "perce"], []
    for loss in losses:
        trained, settings = copy.deepcopy(model), Settings(loss=loss, lr=0.05, steps=1, warmup=0)
        # We use plain gradient descent to show where each loss pulls. train.py uses AdamW, whose
        # first step ignores the size of the gradient. Both gradients are clipped to norm 1.
        optimizer = torch.optim.SGD(trained.parameters(), lr=settings.lr)
        training_step(trained, optimizer, [[example]], settings, step=0)
        changes.append(score(trained, batch)[0] - logp)
    changes = torch.stack(changes, dim=1)  # (N, losses)

    print(f"  {'token':14}" + "".join(f"{loss:>9}" for loss in losses) + "   label")
    rows = zip(token_texts(example, tokenizer), changes.tolist(), example.personal)
    for text, change, personal in list(rows)[:SHOWN]:
        cells = "".join(f" {x:+8.3f}" for x in change)
        print(f"  {text:14}{cells}{'   personal' if personal else ''}")
    flagged = personal_influence_ratio(logp, logp_plain) > CLIP_MIN
    personal = torch.tensor(example.personal)
    groups = {
        "personal, PIR > 0.8": personal & flagged,
        "personal, PIR <= 0.8": personal & ~flagged,
        "all other tokens": ~personal,
    }
    print("  means over all tokens of the response:")
    for name, chosen in groups.items():
        if chosen.any():
            means = changes[chosen].mean(dim=0).tolist()
            print(f"  {name:21}" + "".join(f" {x:+8.3f}" for x in means))


def show_writing(model, tokenizer, row, rows):
    heading("G", "Texts generated by the model")
    stranger = next((r for r in rows if r["task"] == row["task"] and r["user"] != row["user"]), row)
    people = [("this user", row["profile"]), ("a stranger", stranger["profile"])]
    text = show_answers(model, tokenizer, people, row["query"])[0]
    predicted, true = words(text), words(row["response"])
    lcs, f = lcs_length(predicted, true), rouge_l(text, row["response"]).fmeasure
    print("\nROUGE-L of the answer for this user, by hand:")
    print(f"  the longest common subsequence with the response y has {lcs} words")
    print(f"  P = {lcs}/{len(predicted)}, R = {lcs}/{len(true)}, F = 2PR/(P+R) = {f:.3f}")


def main():
    p = cli.Parser(prog="python -m perce_mini.walkthrough", description=__doc__)
    help = "output folder of a train.py run, or a Hugging Face folder"
    p.add_argument("--run", type=Path, default=Path("data/base"), metavar="DIR", help=help)
    help = "folder or JSONL file with the rows"
    p.add_argument("--data", type=Path, default=DATA, metavar="PATH", help=help)
    help = f"row number, starting at 1 (default: 1; {DEFAULT_ROW} for the default data)"
    p.add_argument("--row", type=cli.COUNT, metavar="N", help=help)
    args = p.parse_args()
    if args.data in (DATA, PERSONAS):
        prepare.write_once(PERSONAS)
    rows = read_examples(held_out_file(args.data))
    number = args.row or (DEFAULT_ROW if args.data == DATA else 1)
    if number > len(rows):
        raise UserError(f"--row {number}: {args.data} has only {len(rows)} rows")
    row = rows[number - 1]
    model, tokenizer, _ = load_model(args.run, pick_device("cpu"))
    example = encode_example(row, tokenizer, model.config.block_size)
    batch = collate([example])
    logp, logp_plain = score(model, batch)

    show_row(row, example)
    show_prompts(example, tokenizer)
    show_tokens(example, tokenizer, logp, logp_plain)
    show_losses(logp, logp_plain)
    show_gradient(model, batch, example, logp_plain)
    show_step(model, example, batch, tokenizer, logp, logp_plain)
    show_writing(model, tokenizer, row, rows)


if __name__ == "__main__":
    cli.run(main)
