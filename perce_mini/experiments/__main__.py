"""Repeat the paper's experiments in miniature.

    python -m perce_mini.experiments             list the experiments
    python -m perce_mini.experiments main lr     run two of them
    python -m perce_mini.experiments real -h     fine-tune a pretrained model on real texts

Each experiment writes data/results/NAME.json. README.md in that folder shows all results. Finished
runs are kept in out/experiments and reused.
"""

import sys
import time

from perce_mini.experiments import real, records, report
from perce_mini.experiments.paper import EXPERIMENTS
from perce_mini.experiments.rows import prepare
from perce_mini.experiments.suite import Suite
from perce_mini.runtime import cli


def recorded(name):
    """Return the recorded results of an experiment, or {} if there are none."""
    return records.read(name) if (records.RESULTS / f"{name}.json").exists() else {}


def record(name, suite):
    """Run an experiment and write data/results/NAME.json."""
    made_by, start = records.provenance(), time.perf_counter()
    results = EXPERIMENTS[name](suite)
    took = {"seconds": round(time.perf_counter() - start), "jobs": suite.jobs}
    before = recorded(name)
    # A call that reuses finished runs takes less time, so keep the longer time.
    if before.get("seconds", 0) > took["seconds"]:
        took = {key: before[key] for key in took}
    title = {"title": EXPERIMENTS[name].__doc__.rstrip(".")}
    records.write(name, title | took | made_by | results)


def list_experiments():
    for name, measure in EXPERIMENTS.items():
        before, took = recorded(name), "not recorded yet"
        if before:
            took = f"{before['seconds'] / 60:.0f} min with {before['jobs']} jobs"
        print(f"  {name:10} {measure.__doc__.rstrip('.'):45} ({took})")
    more = "For real texts: python -m perce_mini.experiments real -h"
    print(f"Pass one or more names, or all. {more}")


def parse_args():
    p = cli.Parser(prog="python -m perce_mini.experiments", description=__doc__)
    choices = [*EXPERIMENTS, "all"]
    p.add_argument("names", nargs="*", metavar="NAME", help=", ".join(choices))
    help = "largest number of seeds; some experiments use fewer"
    p.add_argument("--seeds", type=cli.COUNT, default=5, help=help)
    p.add_argument("--jobs", type=cli.COUNT, default=2, help="number of runs in parallel")
    help = "only update the README files from the recorded results"
    p.add_argument("--readme", action="store_true", help=help)
    args = p.parse_args()
    for name in args.names:
        if name not in choices:
            p.error(f"no experiment {name!r}; choose from {', '.join(choices)}")
    return args


def main():
    if sys.argv[1:2] == ["real"]:
        return real.main(sys.argv[2:])
    args = parse_args()
    if not args.names and not args.readme:
        return list_experiments()
    names = [name for name in EXPERIMENTS if name in args.names or "all" in args.names]
    if set(names) - {"cost"}:  # cost needs no data
        prepare(args.jobs)
    for name in names:
        record(name, Suite(args.seeds, args.jobs))
    report.write_readmes()


if __name__ == "__main__":
    cli.run(main)
