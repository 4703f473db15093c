"""The paper in miniature: `python -m perce_mini.experiments NAME ...`, in the project's folder.

What an experiment finds is recorded in data/results/NAME.json, and data/results/README.md shows it. Finished runs are
kept in out/experiments and used again.
"""

import time
from pathlib import Path

import torch

from perce_mini import cli
from perce_mini.errors import UserError
from perce_mini.experiments import html, records, report
from perce_mini.experiments.paper import EXPERIMENTS
from perce_mini.experiments.suite import Suite, prepare
from perce_mini.files import check_writable, write_text_atomic

ALONE = ["worlds", "gpu"]  # no part of `all`: nine more base models, which take hours; a machine with a GPU


def record(name, suite):
    """Run an experiment and write data/results/NAME.json."""
    made, start = records.provenance(), time.perf_counter()
    found = EXPERIMENTS[name](suite)
    took = {"seconds": round(time.perf_counter() - start), "jobs": suite.jobs}
    if (records.RESULTS / f"{name}.json").exists():  # a call that finds most runs done says little of the time it takes
        old = records.read(name)
        took = max(took, {key: old[key] for key in took}, key=lambda one: one["seconds"])
    records.write(name, {"title": EXPERIMENTS[name].__doc__.rstrip(".")} | took | made | found)


def list_experiments():
    """Say what there is, and how long it took."""
    for name, measure in EXPERIMENTS.items():
        took = "not recorded yet"
        if (records.RESULTS / f"{name}.json").exists():
            r = records.read(name)
            took = f"{r['seconds'] / 60:.0f} min with {r['jobs']} jobs"
        print(f"  {name:10} {measure.__doc__.rstrip('.'):45} ({took})")
    print(f"Name some of them, or `all`, which takes hours: all but {' and '.join(ALONE)}.")


def parse_args():
    p = cli.Parser(prog="python -m perce_mini.experiments", description=__doc__)
    p.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(EXPERIMENTS)}, or all; none lists them")
    p.add_argument("--seeds", type=cli.COUNT, default=10, help="seeds of every run that is repeated")
    p.add_argument("--jobs", type=cli.COUNT, default=2, help="runs at a time, each on one core")
    p.add_argument("--readme", action="store_true", help="write data/results/README.md and the README's tables again")
    p.add_argument("--page", type=Path, metavar="FILE", help="write all tables and figures as one page (HTML)")
    args = p.parse_args()
    for name in args.names:
        if name not in [*EXPERIMENTS, "all"]:
            p.error(f"no experiment {name!r}; there are {', '.join(EXPERIMENTS)}, and all")
        if name == "gpu" and not torch.cuda.is_available():
            p.error("gpu: this machine has no CUDA device")
    return args


def main():
    args = parse_args()
    if not Path("data/personas/prepare.py").exists():
        raise UserError("data/personas/prepare.py is not here: run this in the project's folder")
    if args.page:
        check_writable(args.page)
    if not (args.names or args.readme or args.page):
        return list_experiments()
    suite = Suite(args.seeds, args.jobs)
    names = [name for name in EXPERIMENTS if name in args.names or "all" in args.names and name not in ALONE]
    if set(names) - {"gpu", "cost"}:  # these need no data
        prepare(args.jobs)
    for name in names:
        record(name, suite)
    if args.names or args.readme:
        report.write_readmes()
    if args.page:
        write_text_atomic(args.page, html.page())
        print(f"wrote {args.page}")


if __name__ == "__main__":
    cli.run(main)
