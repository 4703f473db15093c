"""A pretrained model on real texts: before, after CE, after PerCE, and after PerCE against a stranger's profile.

    python -m perce_mini.real MODEL_FOLDER DATA_FOLDER [flags of train.py]

Runs train.py and eval.py as anybody would; what is finished is kept, and an interrupted training goes on. Every model is scored with
nobody's and with a stranger's profile in the plain view: a base model's PIR on real text is to a good part the form of the texts. (What
they write does not depend on the plain view, so it is generated once.)
"""

import json
import subprocess
import sys
from pathlib import Path

from perce_mini import checkpoint, cli
from perce_mini.dataset import CONTRASTS

RUNS = {"ce": ["--loss", "ce"], "perce": ["--loss", "perce"], "perce-stranger": ["--loss", "perce", "--contrast", "stranger"]}


def call(*command):
    if subprocess.run([sys.executable, *map(str, command)]).returncode:
        raise cli.RunError(f"stopped at: python {' '.join(map(str, command))}")


def main():
    p = cli.Parser(prog="python -m perce_mini.real", description=__doc__, epilog="Other flags go to train.py, such as --steps 40 --batch-size 8 --lora-rank 16.")
    p.add_argument("model", type=Path, metavar="MODEL_FOLDER", help="Hugging Face folder to start from")
    p.add_argument("data", type=Path, metavar="DATA_FOLDER", help="folder with train.jsonl, and val or test.jsonl")
    p.add_argument("--out", type=Path, default=Path("out/real"), metavar="DIR", help="folder for the runs and heat maps (default out/real)")
    p.add_argument("--examples", type=int, default=60, help="held-out examples to score (default 60)")
    p.add_argument("--top-k", type=int, default=4, help="profile items in the prompt (default 4)")
    p.add_argument("--block-size", type=int, default=2048, help="longest sequence, tokens (default 2048)")
    p.add_argument("--json", type=Path, metavar="FILE", help="write every figure")
    args, flags = p.parse_known_args()
    same = ["--data", args.data, "--top-k", args.top_k]
    folders = [args.out / name for name in RUNS]
    for folder, own in zip(folders, RUNS.values()):
        if not (folder / "finished").exists():
            resume = ["--resume"] if (folder / "checkpoint.pt").exists() else []
            call("train.py", "--init", args.model, *same, "--block-size", args.block_size, "--out", folder, "--eval-examples", 0, *own, *resume, *flags)
            (folder / "finished").touch()
    settings = checkpoint.read(folders[0])["settings"]
    figures = {"model": args.model.name, "data": args.data.name, "settings": {key: value for key, value in settings.items() if key not in ("data", "init", "loss", "contrast")}}
    for contrast in CONTRASTS:
        scores = args.out / f"scores-{contrast}.json"
        call("eval.py", *folders, "--init", args.model, *same, "--block-size", args.block_size, "--contrast", contrast, "--examples", args.examples,
             "--json", scores, "--heatmap", args.out / f"heat-{contrast}.html", *(["--max-new-tokens", 0] if contrast == "stranger" else []))  # fmt: skip
        scored = json.loads(scores.read_text(encoding="utf-8"))
        name = lambda run: "before" if run == str(args.model) else Path(run).name
        figures["examples"] = scored["examples"]
        figures[contrast] = {"runs": {name(run): by_task["all"] for run, by_task in scored["runs"].items()},
                             "minus before": {name(run): by_task["all"] for run, by_task in scored[f"minus {args.model}"].items()}}  # fmt: skip
    if args.json:
        checkpoint.replace_file(args.json, lambda new: Path(new).write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8"))
        print(f"wrote {args.json}")


if __name__ == "__main__":
    cli.run(main)
