"""A pretrained model on real texts: before, after CE, after PerCE, and after PerCE against a stranger's profile.

    python -m perce_mini.real MODEL_FOLDER DATA_FOLDER [flags of train.py]

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

LOSSES = {
    "ce": ["--loss", "ce"],
    "perce": ["--loss", "perce"],
    "perce-stranger": ["--loss", "perce", "--contrast", "stranger"],
}


def call(*command):
    if subprocess.run([sys.executable, *map(str, command)]).returncode:
        raise cli.RunError(f"stopped at: python {' '.join(map(str, command))}")


def parse_args():
    p = cli.Parser(prog="python -m perce_mini.real", description=__doc__,
                   epilog="Other flags go to train.py, such as --steps 40 --batch-size 8 --lora-rank 16.")  # fmt: skip
    p.add_argument("model", type=Path, metavar="MODEL_FOLDER", help="Hugging Face folder to start from")
    p.add_argument("data", type=Path, metavar="DATA_FOLDER", help="folder with train.jsonl, and val or test.jsonl")
    p.add_argument("--lr", nargs="+", type=float, default=[2e-5], metavar="RATE",
                   help="learning rates; each loss gets the one with the best likelihood of val.jsonl (default 2e-5)")
    p.add_argument("--seeds", type=int, default=1, metavar="N",
                   help="runs of every loss at its rate, which the first seed chooses (default 1)")
    p.add_argument("--out", type=Path, default=Path("out/real"), metavar="DIR",
                   help="folder for the runs and heat maps (default out/real)")
    p.add_argument("--examples", type=int, default=60, help="held-out examples to score, 0 for all (default 60)")
    p.add_argument("--top-k", type=int, default=4, help="profile items in the prompt (default 4)")
    p.add_argument("--block-size", type=int, default=2048, help="longest sequence, tokens (default 2048)")
    p.add_argument("--json", type=Path, metavar="FILE", help="write every figure")
    args, flags = p.parse_known_args()
    if args.seeds < 1:
        p.error("--seeds must be above 0")
    if any(flag.split("=")[0] == "--seed" for flag in flags):
        p.error("give --seeds N; the seeds are 0 to N - 1")
    if len(args.lr) > 1 and not all((args.data / name).exists() for name in ["val.jsonl", "test.jsonl"]):
        p.error(f"choosing between rates needs val.jsonl beside test.jsonl in {args.data}")
    return args, flags


def check_same_settings(args, flags):
    """What --out keeps belongs to the settings it was made with. Raises RunError for others."""
    asked = {key: str(value) for key, value in vars(args).items() if key not in ("lr", "seeds", "out", "json")}
    asked["flags"], file = flags, args.out / "asked.json"
    if file.exists() and json.loads(file.read_text(encoding="utf-8")) != asked:
        raise cli.RunError(f"{args.out} was made with other settings, see {file}: give the same or another --out")
    args.out.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(asked), encoding="utf-8")


def main():
    args, flags = parse_args()
    check_same_settings(args, flags)
    same = ["--top-k", args.top_k, "--block-size", args.block_size]
    start = ["--init", args.model, "--data", args.data, "--eval-examples", 0]

    def trained(loss, rate, seed):
        folder = args.out / f"{loss}-{rate:g}{of_seed(seed)}"
        if not (folder / "finished").exists():
            resume = ["--resume"] if (folder / "checkpoint.pt").exists() else []
            how = [*LOSSES[loss], "--lr", rate, *flags, "--seed", seed]
            call("train.py", *start, *same, *how, "--out", folder, *resume)
            (folder / "finished").touch()
        return folder

    def scores(file, *what):
        if not file.exists():
            call("eval.py", *same, "--examples", args.examples, "--json", file, *what)
        return json.loads(file.read_text(encoding="utf-8"))

    of_seed = lambda seed: f"-seed-{seed}" if seed else ""
    unwritten = ["--max-new-tokens", 0]

    def likelihood(folder):  # of the validation users
        scored = scores(folder / "val.json", folder, "--data", args.data / "val.jsonl", *unwritten, "--samples", 0)
        return scored["runs"][str(folder)]["all"]["logp"]

    runs, tried = {loss: {rate: trained(loss, rate, 0) for rate in args.lr} for loss in LOSSES}, {}
    if len(args.lr) > 1:
        tried = {loss: {rate: likelihood(folder) for rate, folder in by_rate.items()} for loss, by_rate in runs.items()}
    rates = {loss: max(tried[loss], key=tried[loss].get) if tried else args.lr[0] for loss in LOSSES}

    settings = checkpoint.read(runs["ce"][rates["ce"]])["settings"]
    settings = {key: settings[key] for key in settings if key not in ("data", "init", "loss", "contrast", "lr", "seed")}
    figures = {"model": args.model.name, "data": args.data.name, "settings": settings, "rates": rates}
    figures |= {"validation log-likelihood": tried, "seeds": []}
    for seed in range(args.seeds):
        best = {loss: trained(loss, rate, seed) for loss, rate in rates.items()}
        name = {str(folder): loss for loss, folder in best.items()} | ({} if seed else {str(args.model): "before"})
        by_loss = lambda found: {name[run]: by_task["all"] for run, by_task in found.items()}
        found = {}
        for contrast in CONTRASTS:
            of = "-".join([contrast, *(f"{rate:g}" for rate in rates.values())]) + of_seed(seed)
            page = args.out / f"heat-{contrast}{of_seed(seed)}.html"
            what = [*name, "--data", args.data, "--contrast", contrast, "--heatmap", page, "--seed", seed]
            scored = scores(args.out / f"scores-{of}.json", *what, *(unwritten if contrast == "stranger" else []))
            found[contrast] = {"runs": by_loss(scored["runs"]), "minus ce": by_loss(scored[f"minus {best['ce']}"])}
        figures["seeds"].append(found)
        figures["examples"] = scored["examples"]
    if args.json:
        text = json.dumps(figures, indent=1) + "\n"
        checkpoint.replace_file(args.json, lambda new: Path(new).write_text(text, encoding="utf-8"))
        print(f"wrote {args.json}")


if __name__ == "__main__":
    cli.run(main)
