"""Keep a base model of the default data as the one that everybody starts from.

    python train.py --base-steps 1500 --loss ce --steps 1 --eval-examples 0
    python data/personas/ship.py out/base

Writes data/base: the weights in bfloat16, without the optimiser, and every twentieth line of the log. Processors round
differently, so a base model trained here and one trained there differ by more than the losses that are compared.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository, so that this runs from any folder

from perce_mini import checkpoint, cli
from perce_mini.errors import UserError


def main():
    p = cli.Parser(description=__doc__)
    p.add_argument("source", type=Path, metavar="DIR", help="folder of the base model")
    p.add_argument("--out", type=Path, default=Path("data/base"), metavar="DIR", help="where to write")
    args = p.parse_args()
    model, tokenizer, state = checkpoint.load(args.source)
    if state["settings"].get("init"):
        raise UserError(f"{args.source} is no base model")
    if args.out.resolve() == args.source.resolve():
        raise UserError(f"{args.out} is the model itself: give another --out")
    model.bfloat16()
    checkpoint.save(args.out, model, tokenizer, state["settings"], state["step"], state["log"][19::20])
    print(f"wrote {args.out}/checkpoint.pt")


if __name__ == "__main__":
    cli.run(main)
