"""A pretrained model on real texts: before, after CE, after PerCE, and after PerCE against a stranger's profile.

    python -m perce_mini.hf.compare MODEL_FOLDER DATA_FOLDER [flags of train.py]

Runs train.py and eval.py as anybody would. What is finished is kept, and an interrupted training goes on; a rate may
be added later. Every model is scored with nobody's and with a stranger's profile in the plain view: a base model's PIR
on real text is to a good part the form of the texts. (What they write does not depend on the plain view, so it is
generated once.)
"""

import json
import subprocess
import sys
from pathlib import Path

from perce_mini import checkpoint, cli
from perce_mini.dataset import CONTRASTS
from perce_mini.errors import UserError
from perce_mini.experiments.records import dump
from perce_mini.files import check_writable, write_text_atomic

ROOT = Path(__file__).resolve().parents[2]
LOSSES = {
    "ce": ["--loss", "ce"],
    "perce": ["--loss", "perce"],
    "perce-stranger": ["--loss", "perce", "--contrast", "stranger"],
}
NO_TEXT = ["--max-new-tokens", 0]


def parse_args():
    p = cli.Parser(
        prog="python -m perce_mini.hf.compare",
        description=__doc__,
        epilog="Other flags go to train.py, such as --steps 40 --batch-size 8 --lora-rank 16.",
    )
    p.add_argument("model", type=Path, metavar="MODEL_FOLDER", help="Hugging Face folder to start from")
    p.add_argument("data", type=Path, metavar="DATA_FOLDER", help="folder with train.jsonl, and val or test.jsonl")
    help = "learning rates; each loss gets the one with the best likelihood of val.jsonl (default 2e-5)"
    p.add_argument("--lr", nargs="+", type=cli.number(float, above=0), default=[2e-5], metavar="RATE", help=help)
    help = "runs of every loss at its rate, which the first seed chooses"
    p.add_argument("--seeds", type=cli.COUNT, default=1, metavar="N", help=help)
    p.add_argument("--out", type=Path, default=Path("out/real"), metavar="DIR", help="folder for runs and heat maps")
    p.add_argument("--examples", type=cli.COUNT_OR_NONE, default=60, help="held-out examples to score, 0 for all")
    p.add_argument("--top-k", type=cli.COUNT_OR_NONE, default=4, help="profile items in the prompt")
    p.add_argument("--block-size", type=cli.COUNT, default=2048, help="longest sequence, tokens")
    p.add_argument("--json", type=Path, metavar="FILE", help="write every figure")
    args, args.flags = p.parse_known_args()
    if any(flag.split("=")[0] == "--seed" for flag in args.flags):
        p.error("give --seeds N; the seeds are 0 to N - 1")
    if len(args.lr) > 1 and not all((args.data / name).exists() for name in ["val.jsonl", "test.jsonl"]):
        p.error(f"choosing between rates needs val.jsonl beside test.jsonl in {args.data}")
    return args


def check_same_settings(args):
    """What --out keeps belongs to the settings it was made with. Raises UserError for others."""
    asked = {key: str(value) for key, value in vars(args).items() if key not in ("lr", "seeds", "out", "json")}
    file, text = args.out / "asked.json", json.dumps(asked)
    if file.exists() and file.read_text(encoding="utf-8", errors="replace") != text:
        raise UserError(f"{args.out} was made with other settings, see {file}: give the same or another --out")
    write_text_atomic(file, text)


def call(script, args, *flags):
    """Run train.py or eval.py with these flags, and those that all runs share."""
    shared = ["--top-k", args.top_k, "--block-size", args.block_size]
    command = [sys.executable, *map(str, [ROOT / script, *flags, *shared])]
    if subprocess.run(command).returncode:
        raise UserError(f"stopped at: {' '.join(command)}")


def name_of(seed):
    return f"-seed-{seed}" if seed else ""


def train(args, loss, rate, seed):
    """The folder of a run, which is trained now unless it is finished."""
    folder = args.out / f"{loss}-{rate:g}{name_of(seed)}"
    if not (folder / "finished").exists():
        resume = ["--resume"] if (folder / "checkpoint.pt").exists() else []
        start = ["--init", args.model, "--data", args.data, "--eval-examples", 0]
        how = [*LOSSES[loss], "--lr", rate, *args.flags, "--seed", seed]
        call("train.py", args, *start, *how, "--out", folder, *resume)
        (folder / "finished").touch()
    return folder


def scores(args, file, *flags):
    """What eval.py says of these flags, which is kept in `file`."""
    if not file.exists():
        call("eval.py", args, *flags, "--examples", args.examples, "--json", file)
    return json.loads(file.read_text(encoding="utf-8"))


def validate(args, loss):
    """{rate: log-likelihood of the validation users} of a loss's runs of the first seed."""
    found = {}
    for rate in args.lr:
        folder = train(args, loss, rate, 0)
        data = ["--data", args.data / "val.jsonl", "--samples", 0]
        scored = scores(args, folder / "val.json", folder, *data, *NO_TEXT)
        found[rate] = scored["runs"][str(folder)]["all"]["logp"]
    return found


def score_seed(args, rates, seed):
    """A seed's runs on held-out users: {contrast: {"runs": {loss: figures}, "minus ce": ...}}, number of examples."""
    runs = {loss: train(args, loss, rate, seed) for loss, rate in rates.items()}
    losses = {str(folder): loss for loss, folder in runs.items()} | ({} if seed else {str(args.model): "before"})
    found = {}
    for contrast in CONTRASTS:
        name = "-".join([contrast, *(f"{rate:g}" for rate in rates.values())]) + name_of(seed)
        page = args.out / f"heat-{contrast}{name_of(seed)}.html"
        flags = [*losses, "--data", args.data, "--contrast", contrast, "--heatmap", page, "--seed", seed]
        scored = scores(args, args.out / f"scores-{name}.json", *flags, *(NO_TEXT if contrast == "stranger" else []))
        parts = {"runs": scored["runs"], "minus ce": scored[f"minus {runs['ce']}"]}
        found[contrast] = {key: {losses[run]: part[run]["all"] for run in part} for key, part in parts.items()}
    return found, scored["examples"]


def main():
    args = parse_args()
    check_same_settings(args)
    if args.json:
        check_writable(args.json)
    tried = {loss: validate(args, loss) for loss in LOSSES} if len(args.lr) > 1 else {}
    rates = {loss: max(tried[loss], key=tried[loss].get) if tried else args.lr[0] for loss in LOSSES}
    seeds, examples = zip(*[score_seed(args, rates, seed) for seed in range(args.seeds)])
    settings = checkpoint.read(train(args, "ce", rates["ce"], 0))["settings"]
    same = {key: settings[key] for key in settings if key not in ("data", "init", "loss", "contrast", "lr", "seed")}
    figures = {"model": args.model.name, "data": args.data.name, "settings": same, "rates": rates}
    figures |= {"validation log-likelihood": tried, "seeds": seeds, "examples": examples[0]}
    if args.json:
        write_text_atomic(args.json, dump(figures))
        print(f"wrote {args.json}")


if __name__ == "__main__":
    cli.run(main)
