"""Find the words of a text that the author's earlier texts make more likely, without training.

    python -m perce_mini.pir MODEL_FOLDER --profile mine.txt --text new.txt --html out/pir.html

MODEL_FOLDER is a Hugging Face folder (Llama 3, SmolLM2, Qwen), the output folder of a train.py run,
or data/base. In a notebook:

    from perce_mini.pir import score_pir
    from perce_mini.runtime.models import load_model

    model, tokenizer, _ = load_model("MODEL_FOLDER", "cpu")
    score_pir(model, tokenizer, ["Howdy folks, it flickers."], "A kettle", "Howdy folks, it boils.")
    # [("Howdy", 3.1), (" folks", 2.9), (",", 0.0), ...]
"""

import math
from pathlib import Path

from perce_mini import heatmap
from perce_mini.dataset import encode_rows
from perce_mini.percontrast import CLIP_MIN
from perce_mini.rows import Row
from perce_mini.runtime import cli
from perce_mini.runtime.device import pick_device
from perce_mini.runtime.errors import UserError, plural, printable
from perce_mini.runtime.files import check_output, read_text, write_text_atomic
from perce_mini.runtime.models import load_model
from perce_mini.sample import marked, note_made_up_world, read_profile, uses_colour
from perce_mini.scoring import evaluate
from perce_mini.tables import say, show_text

TOP_TOKENS = 10


def score_pir(model, tokenizer, profile, query, text, top_k=4):
    """Compute the PIR of every token in a text: [(token, PIR in nats), ...].

    profile: the author's earlier texts, as strings or {"query", "response"} items; the `top_k` most
    relevant ones are used. Raises UserError if the text is longer than the model's block size.
    """
    record = score_text(model, tokenizer, profile, query, text, top_k)
    parts = heatmap.parts_of(record, tokenizer)
    return [(part.text, part.pir) for part in parts]


def score_text(model, tokenizer, profile, query, text, top_k=4):
    """Score a single text and return its record from scoring.evaluate."""
    items = []
    for item in profile:
        items.append({"query": "", "response": item} if isinstance(item, str) else item)
    row = Row(user="author", task="text", query=query, response=text, profile=items)
    row.where = "the text"
    examples = encode_rows([row], tokenizer, model.config.block_size, top_k)
    return evaluate(model, tokenizer, examples, 0, 0.0, desc=None)[0]


def show_top_tokens(record, tokenizer):
    """Print the tokens with the highest PIR, and their probabilities in both views."""
    tokens = [printable(tokenizer.decode([i])) for i in record["response"][:-1]]
    order = sorted(range(len(tokens)), key=lambda i: -record["pir"][i])[:TOP_TOKENS]
    print(f"\n  {'token':20} {'P with':>9} {'P without':>10} {'PIR':>7}")
    for i in order:
        p, plain = math.exp(record["logp"][i]), math.exp(record["logp_plain"][i])
        text = tokens[i].strip() or repr(tokens[i])
        print(f"  {text:20.20} {p:9.4f} {plain:10.4f} {record['pir'][i]:+7.2f}")


def parse_args():
    p = cli.Parser(prog="python -m perce_mini.pir", description=__doc__)
    help = "Hugging Face folder, output folder of a train.py run, or data/base"
    p.add_argument("model", type=Path, metavar="MODEL_FOLDER", help=help)
    help = "earlier texts by the author: a text file (blank lines between texts), or a folder of"
    help += " text files"
    p.add_argument("--profile", type=Path, required=True, metavar="PATH", help=help)
    help = "text file with the new text"
    p.add_argument("--text", type=Path, required=True, metavar="FILE", help=help)
    p.add_argument("--query", default="", help="the query that the text answers, if any")
    p.add_argument("--top-k", **cli.TOP_K, default=4)
    p.add_argument("--html", type=Path, metavar="FILE", help="also write a heat map")
    p.add_argument("--device", **cli.DEVICE)
    return p.parse_args()


def main():
    args = parse_args()
    profile = read_profile(args.profile)
    text = read_text(args.text).strip()
    if not text:
        raise UserError(f"{args.text} contains no text")
    if args.html:
        check_output(args.html, [args.text, args.profile, *args.model.glob("*")])
    print(f"loading {args.model}", flush=True)
    loaded = load_model(args.model, pick_device(args.device))
    model, tokenizer, _ = loaded
    note_made_up_world(loaded.settings)
    query = args.query or "Write a text."  # a prompt must not be empty
    record = score_text(model, tokenizer, profile, query, text, args.top_k)
    parts = [(part.text, part.pir > CLIP_MIN) for part in heatmap.parts_of(record, tokenizer)]
    print()
    show_text(f"{args.text}, with PIR > {CLIP_MIN} marked", marked(parts, uses_colour()))
    show_top_tokens(record, tokenizer)
    pir = record["pir"]
    share = (pir > CLIP_MIN).mean()
    earlier = plural(len(record["profile_indices"]), "earlier text")
    say(
        f"{share:.0%} of {len(pir)} tokens have PIR > {CLIP_MIN}: they are more than"
        f" {math.exp(CLIP_MIN):.1f} times as likely with {earlier} in the prompt as without."
        f" Mean PIR: {pir.mean():+.2f} nats."
    )
    if args.html:
        name = str(args.model)
        write_text_atomic(args.html, heatmap.page({name: [record]}, {name: tokenizer}))
        print(f"wrote {args.html}")


if __name__ == "__main__":
    cli.run(main)
