"""A pretrained model on real texts: before, and after CE, PerCE, PerCE against a stranger and PerCE with the cap 2.

    python -m perce_mini.hf.compare MODEL_FOLDER DATA_FOLDER [flags of train.py]

What is finished is kept in --out, and an interrupted training goes on. The model before and the first runs of CE and
PerCE are scored a second time, with a stranger's profile in the plain view: a base model's PIR on real text is in
part the form of the texts.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from perce_mini import cli, scoring
from perce_mini.dataset import encode_rows, held_out_file, read_examples, subsample
from perce_mini.device import pick_device
from perce_mini.errors import UserError
from perce_mini.experiments.records import ROOT, dump, provenance, table, with_more
from perce_mini.experiments.report import markdown_table
from perce_mini.experiments.suite import PAIRED
from perce_mini.experiments.tabulate import named
from perce_mini.files import check_writable, parse_json, sha256, write_text_atomic
from perce_mini.hf.folder import load_any
from perce_mini.percontrast import CLIP_MIN
from perce_mini.scoring import MAX_NEW_TOKENS

TRAININGS = {
    "ce": ["--loss", "ce"],
    "perce": ["--loss", "perce"],
    "perce-stranger": ["--loss", "perce", "--contrast", "stranger"],
    "perce-cap-2": ["--loss", "perce", "--clip-max", 2],
}
TEMPERATURE, GREEDY = 0.4, ", greedy"  # texts are written twice, the second time greedily
SHARE, LENGTH = f"share of tokens with PIR > {CLIP_MIN}", "words written / words of the user"
OWN = ["--loss", "--init", "--data", "--contrast", "--clip-max", "--seed", "--template", "--eval-examples"]
OWN += ["--resume", "--overwrite"]
OF_TEXTS = ["rouge_l", "rouge_p", "rouge_r", LENGTH]
AGAINST = {metric: f"{metric}, against a stranger" for metric in ["pir", SHARE]}


def parse_args():
    p = cli.Parser(
        prog="python -m perce_mini.hf.compare",
        description=__doc__,
        epilog="Other flags go to train.py, such as --steps 40 --batch-size 8 --lora-rank 16.",
    )
    p.add_argument("model", type=Path, metavar="MODEL_FOLDER", help="Hugging Face folder to start from")
    p.add_argument("data", type=Path, metavar="DATA_FOLDER", help="folder with train.jsonl, and val or test.jsonl")
    help = f"of {', '.join(TRAININGS)}: those to train (default all); without any the model before is scored alone"
    p.add_argument("--losses", nargs="*", choices=TRAININGS, default=[*TRAININGS], metavar="LOSS", help=help)
    help = "learning rates; each loss gets the one with the best likelihood of val.jsonl (default 2e-5)"
    p.add_argument("--lr", nargs="+", type=cli.RATE, default=[2e-5], metavar="RATE", help=help)
    help = "runs of every loss at its rate, which the first seed chooses"
    p.add_argument("--seeds", type=cli.COUNT, default=1, metavar="N", help=help)
    p.add_argument("--out", type=Path, default=Path("out/real"), metavar="DIR", help="folder for runs and their scores")
    p.add_argument("--examples", type=cli.COUNT_OR_NONE, default=60, help="held-out examples to score, 0 for all")
    p.add_argument("--top-k", type=cli.COUNT_OR_NONE, default=4, help="profile items in the prompt")
    p.add_argument("--block-size", type=cli.COUNT, default=2048, help="longest sequence, tokens")
    p.add_argument("--json", type=Path, metavar="FILE", help="write every figure")
    args, args.flags = p.parse_known_args()
    args.losses = list(dict.fromkeys(args.losses))  # named twice, a loss is meant once
    for flag in args.flags:
        if flag.split("=")[0] in OWN:
            p.error(f"{flag} is not for train.py here; see --losses, --lr and --seeds")
    if len(args.lr) > 1 and not all((args.data / name).exists() for name in ["val.jsonl", "test.jsonl"]):
        p.error(f"choosing between rates needs val.jsonl beside test.jsonl in {args.data}")
    return args


def files_read(args):
    """The rows, and what tells one model from another."""
    files = [args.data / f"{split}.jsonl" for split in ["train", "val", "test"]] + [args.model / "config.json"]
    return [path for path in files if path.exists()]


def check_same_settings(args):
    """What --out keeps belongs to the settings it was made with. Raises UserError for others."""
    may_differ = ("losses", "lr", "seeds", "out", "json")
    asked = {key: str(value) for key, value in vars(args).items() if key not in may_differ}
    asked |= {path.name: sha256(path) for path in files_read(args)}
    file, text = args.out / "asked.json", json.dumps(asked)
    runs = [path for path in args.out.glob("*") if path.is_dir()]
    if runs and file.exists() and file.read_text(encoding="utf-8", errors="replace") != text:
        raise UserError(f"{args.out} was made with other settings, see {file}: give the same or another --out")
    write_text_atomic(file, text)


def train(args, loss, rate, seed):
    """The folder of a run, which is trained now unless it is finished."""
    folder = args.out / f"{loss}-{rate:g}-seed-{seed}"
    if not (folder / "finished").exists():
        resume = ["--resume"] if (folder / "checkpoint.pt").exists() else []
        flags = ["--init", args.model, "--data", args.data, "--top-k", args.top_k, "--block-size", args.block_size]
        flags += [*TRAININGS[loss], "--lr", rate, *args.flags, "--seed", seed, "--eval-examples", 0, "--out", folder]
        command = [sys.executable, *map(str, [ROOT / "train.py", *flags, *resume])]
        if subprocess.run(command).returncode:
            raise UserError(f"stopped at: {' '.join(command)}")
        (folder / "finished").touch()
    return folder


def score(args, folder, path, contrast="none", temperature=None, seed=0):
    """(figures, tallies) of a run, or of the model before, on rows of a file; kept in the run's folder.

    temperature: of the texts that it writes; None for no texts.
    """
    texts = "" if temperature is None else f"-{temperature:g}"
    kept = (args.out / "before" if folder == args.model else folder) / f"{path.stem}-{contrast}{texts}.json"
    if not kept.exists():
        device = pick_device("auto")
        model, tokenizer, _ = load_any(folder, device, block_size=args.block_size)
        at_once = 256 if device.type == "cuda" else 32  # a GPU writes as many texts in the time of one
        rows, n = subsample(read_examples(path), args.examples), MAX_NEW_TOKENS * bool(texts)
        room = MAX_NEW_TOKENS  # also where no texts are written: all scores are of the same prompts
        examples = encode_rows(rows, tokenizer, model.config.block_size, args.top_k, room, contrast)
        records = scoring.evaluate(model, tokenizer, examples, n, temperature, seed, at_once, desc=f"{kept}")
        figures = {metric: x for metric, x in scoring.summarize(records).items() if x is not None}
        figures |= {SHARE: float(np.mean(np.concatenate([r["pir"] for r in records]) > CLIP_MIN))}
        if texts:
            words = [[len(text.split()) for text in (r["prediction"], r["row"]["response"])] for r in records]
            written, own = np.sum(words, axis=0)
            figures[LENGTH] = float(written / own)
        write_text_atomic(kept, json.dumps({"figures": figures, "tallies": scoring.table_of(records).tolist()}))
    scores = parse_json(kept.read_text(encoding="utf-8"), kept)
    return scores["figures"], np.array(scores["tallies"], dtype=float)


def score_texts(args, folder, path, seed=0):
    """`score` of sampled texts, and of greedy ones."""
    return [score(args, folder, path, temperature=temperature, seed=seed) for temperature in [TEMPERATURE, 0]]


def best_rates(args):
    """{loss: its rate}, and what was tried: {loss: {rate: log-likelihood of the validation users}}."""
    if len(args.lr) == 1:
        return dict.fromkeys(args.losses, args.lr[0]), {}
    tried = {}
    for loss in args.losses:
        runs = {rate: train(args, loss, rate, 0) for rate in args.lr}
        tried[loss] = {rate: score(args, run, args.data / "val.jsonl")[0]["logp"] for rate, run in runs.items()}
    return {loss: max(by_rate, key=by_rate.get) for loss, by_rate in tried.items()}, tried


def difference(users, runs, reference):
    """{metric: [difference, low, high]} of what score_texts found of the seeds of a run and of its reference."""
    change = {}
    for i, how in enumerate(["", GREEDY]):
        tables = [[tallies for _, tallies in (both[i] for both in some)] for some in [runs, reference]]
        change |= {metric + how: list(x) for metric, x in scoring.paired(users, *tables).items()}
    return change


def measure(args):
    """The tables of all runs, which are trained and scored where that is not done yet, seed by seed."""
    rates, tried = best_rates(args)
    path = held_out_file(args.data)
    users = [row["user"] for row in subsample(read_examples(path), args.examples)]
    scored, against = {loss: [] for loss in args.losses}, {}
    for seed in range(args.seeds):
        for loss in args.losses:
            run = train(args, loss, rates[loss], seed)
            scored[loss].append(score_texts(args, run, path, seed))
            if seed == 0 and loss in ("ce", "perce"):
                against[loss] = score(args, run, path, "stranger")[0]
    scored = {"before": [score_texts(args, args.model, path)]} | scored
    against["before"] = score(args, args.model, path, "stranger")[0]
    rows, changes = {}, {}
    for name, some in scored.items():
        more = {words: against[name][metric] for metric, words in AGAINST.items() if name in against}
        figures = [sampled | {m + GREEDY: greedy[m] for m in OF_TEXTS} for (sampled, _), (greedy, _) in some]
        rows[name] = with_more(figures, more)
        if "ce" in scored and name != "ce":  # the model before is the same for all seeds
            changes[name] = [difference(users, some * (args.seeds // len(some)), scored["ce"])]
    what = f"{args.model.name} on {args.data.name}: {len(users)} held-out examples of {len(set(users))} users."
    return tables_of(what, rates, rows, changes, tried)


def tables_of(what, rates, rows, changes, tried):
    chosen = ", ".join(f"{named(loss)} {rate:g}" for loss, rate in rates.items())
    greedily = [metric + GREEDY for metric in OF_TEXTS]
    shown = [*OF_TEXTS, *greedily, "logp", "logp_plain", "pir", SHARE, *AGAINST.values()]
    tables = [table(f"{what}{chosen and f' Learning rates: {chosen}.'}", shown, rows, transposed=True)]
    if changes:
        compared = [*OF_TEXTS[:3], *greedily[:3], "logp"]  # LENGTH has no tallies
        tables.append(table(f"Differences to CE: {PAIRED}.", compared, changes, "minus CE", transposed=True))
    if tried:
        rates = {loss: [by_rate] for loss, by_rate in tried.items()}
        tables.append(table("Validation log P by learning rate, seed 0.", list(next(iter(tried.values()))), rates))
    return tables


def main():
    args = parse_args()
    check_same_settings(args)
    if args.json:
        check_writable(args.json)
        if args.json.exists() and any(args.json.samefile(path) for path in files_read(args)):
            raise UserError(f"{args.json} is read here: give another file")
    asked = vars(args) | {"losses": " ".join(args.losses), "lr": " ".join(f"{rate:g}" for rate in args.lr)}
    names = ["losses", "lr", "seeds", "examples", "top_k", "block_size"]
    own = [f"--{name.replace('_', '-')} {asked[name]}".strip() for name in names]
    command = " ".join(["python -m perce_mini.hf.compare MODEL_FOLDER DATA_FOLDER", *own, *args.flags])
    made, tables = provenance(), measure(args)
    for one in tables:
        print(f"\n{markdown_table(one)}")
    if args.json:
        title = f"Real texts: {args.json.stem.removeprefix('real_').replace('_', ', ')}"
        write_text_atomic(args.json, dump({"title": title, "command": command} | made | {"tables": tables}))
        print(f"wrote {args.json}")


if __name__ == "__main__":
    cli.run(main)
