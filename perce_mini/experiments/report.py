"""What data/results/ says: its README.md with all tables and figures, and the marked parts of the project's README.

What they mean is written by hand, in findings.md: a part "## NAME" per experiment, in it a paragraph
![what it shows](NAME-CHART.svg) for each chart.
"""

import json
import re
from pathlib import Path

from perce_mini.experiments import records
from perce_mini.experiments.charts import LOOKS, differences, svg
from perce_mini.experiments.paper import EXPERIMENTS
from perce_mini.experiments.picture import response_svg
from perce_mini.experiments.records import RESULTS
from perce_mini.experiments.tabulate import caption, named, texts
from perce_mini.files import write_text_atomic

README, COMMAND = Path("README.md"), "python -m perce_mini.experiments"
HEAD = f"""# Recorded results

Written by `{COMMAND} --readme` from the recorded figures (`NAME.json`) and from what `findings.md` says of them.
`NOTES.md` is the lab book; `--page FILE` makes one page of all this.

"""
IMAGE = re.compile(r"!\[(.*)\]\((\S+\.svg)\)")


def recorded():
    """{name: results} of all that is recorded, with the command that made them."""
    names = [name for name in EXPERIMENTS if (RESULTS / f"{name}.json").exists()]
    names += sorted(path.stem for path in RESULTS.glob("real_*.json"))  # of perce_mini.hf.compare
    return {name: {"command": f"{COMMAND} {name}"} | records.read(name) for name in names}


def findings():
    """{name: text} of findings.md."""
    path = RESULTS / "findings.md"
    parts = re.split(r"^## (\w+)\n", path.read_text(encoding="utf-8") if path.exists() else "", flags=re.M)
    return dict(zip(parts[1::2], map(str.strip, parts[2::2])))


def figures():
    """{file: SVG} of all charts; what a chart shows stands in findings.md."""
    found, written = {}, dict(map(reversed, IMAGE.findall("".join(findings().values()))))
    if rows := list(against_ce()):
        found["differences.svg"] = differences(rows, "ROUGE-L minus CE's", written.get("differences.svg", "ROUGE-L"))
    for name, r in recorded().items():
        for chart in r.get("charts", []):
            file = f"{name}-{chart['name']}.svg"
            found[file] = svg(chart, written.get(file, r["title"]))
    return found


def against_ce():
    """(label, loss, difference, low, high) in ROUGE-L of every recorded comparison with CE."""
    found = recorded()
    if "main" in found:
        for kind, (one,) in found["main"]["tables"][1]["rows"].items():
            yield f"main: {named(kind)}", kind if kind in LOOKS else "perce", *one["rouge_l"]
    if "worlds" in found:
        for label, (one,) in list(found["worlds"]["tables"][0]["rows"].items())[1:]:  # that of `main` is the first
            yield f"PerCE in {'all worlds' if label == 'all' else f'world {label}'}", "perce", *one["rouge_l"]
    if "regimes" in found:
        shown = []  # the default run belongs to every dial
        for label, (one,) in found["regimes"]["tables"][0]["rows"].items():
            if one not in shown:
                shown.append(one)
                yield f"PerCE with {' '.join(reversed(label.split(' | ')))}", "perce", *one["rouge_l"]
    for name in found:
        source = found[name]["title"].removeprefix("Real texts: ")
        for table in found[name]["tables"][1:2] if name.startswith("real_") else []:
            for kind, (one,) in table["rows"].items():
                if kind != "before":
                    yield f"{source}: {named(kind)}", "perce", *one["rouge_l"]


def markdown_table(table):
    head, *rows = ["| " + " | ".join(cells) + " |\n" for cells in texts(table)]
    return f"{caption(table)}\n\n{head}{'|---' * (head.count(' | ') + 1)}|\n{''.join(rows)}".strip()


def section(name, r, text):
    """Title, what made it, findings (text), figures, tables."""
    made = f", commit {r['commit'][:7]}, {r['date']}" if "commit" in r else ""
    made += f", on one {r['gpu']}" if "gpu" in r else ""
    images = [f"{name}-{chart['name']}.svg" for chart in r.get("charts", [])]
    text += "".join(f"\n\n![{r['title']}]({file})" for file in images if file not in text)
    parts = [f"\n## {r['title']}", f"`{r['command']}`{made}.", text, *map(markdown_table, r["tables"])]
    return "\n\n".join(filter(None, parts)) + "\n"


def anchor(title):
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


def results_readme():
    """data/results/README.md."""
    found, text = recorded(), {name: IMAGE.sub(r"\g<0>\n\n*\1*", x) for name, x in findings().items()}
    first = f"{text['overview']}\n\n## The paper's claims, one by one\n\n{text['claims']}\n\n"
    contents = "".join(f"- [{r['title']}](#{anchor(r['title'])})\n" for r in found.values())
    return HEAD + first + contents + "".join(section(name, r, text.get(name, "")) for name, r in found.items())


def with_parts(readme):
    """A README with its parts filled, from <!-- NAME: ... --> to <!-- end of NAME -->: an output, and findings."""
    output = (RESULTS / "train_output.txt").read_text(encoding="utf-8")
    parts = {"example": f"```text\n{output}```"} | {name: findings()[name] for name in ["verdict", "claims"]}
    pattern = rf"(<!-- ({'|'.join(parts)}): .*? -->\n).*?(\n<!-- end of \2 -->)"
    return re.sub(pattern, lambda part: part[1] + parts[part[2]] + part[3], readme, flags=re.S)


def write_readmes():
    files = {RESULTS / file: text for file, text in figures().items()} | {RESULTS / "README.md": results_readme()}
    example = RESULTS / "example.json"
    if example.exists():
        shown = json.loads(example.read_text(encoding="utf-8"))
        files |= {RESULTS / f"example-{look}.svg": response_svg(shown, look == "dark") for look in ["light", "dark"]}
    files[README] = with_parts(README.read_text(encoding="utf-8"))
    for path, text in files.items():
        write_text_atomic(path, text)
    for path in {path for name in EXPERIMENTS for path in RESULTS.glob(f"{name}-*.svg")} - set(files):
        path.unlink()  # of a chart that is no more
    print(f"wrote {README}, {RESULTS}/README.md and its figures")
