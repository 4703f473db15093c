"""The recorded results: files, tables, charts, and the prose with its fields."""

import json
import re
import xml.etree.ElementTree as ElementTree

import pytest

from perce_mini.experiments import charts, records, report, tabulate
from perce_mini.runtime.errors import UserError
from tests.conftest import ROOT

NOT_OURS = "(over|paper's|bring) 10 %|up to (0.878|68 %)|0.373, CE 0.226|3.08 of 5|0.66 on DROP"
NAMES = r"F1\b|ROUGE-1|SmolLM2-135M|GPT-2|Qwen3-1.7B|Qwen3-4B|arXiv 2603.06595|95 %|cludes 0\b"
NAMES += r"|--ce-first 0.5|PIR > 0.8|\[0.8, 5\]|temperature 0.4|turn 6|4 to 14 billion|300 steps"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A results folder with one record that has two tables."""
    monkeypatch.setattr(records, "RESULTS", tmp_path)
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    monkeypatch.setattr(report, "FINDINGS", tmp_path / "findings.md")
    rows = {"ce": [{"x": 0.5}, {"x": 0.7}], "perce, cap 2": [{"x": 0.7}, {"x": 0.7, "y": 3.25}]}
    changes = {(s, 30, "ce"): [{"x": [x, x - 2, x + 2]}] for s, x in [("a", 1), ("b", 3), ("c", 3)]}
    tables = [records.table("One.", ["x", "y"], rows)]
    tables.append(records.table("Two.", ["x"], changes, ("setting", "steps", "loss"), digits=1))
    made = {"title": "A toy", "commit": "0123456789", "date": "now"}
    records.write("toy", made | {"tables": tables})
    (tmp_path / "findings.md").write_text("?\n## overview\nAll.\n## claims\n{value toy ce x:.1f}\n")
    return tmp_path


def test_the_written_files_are_up_to_date(monkeypatch):
    """If this fails, run python -m perce_mini.experiments --readme."""
    monkeypatch.chdir(ROOT)
    files = report.generated_files()
    stale = [str(p) for p, text in files.items() if p.read_text(encoding="utf-8") != text]
    assert not stale
    images = re.findall(r"\]\((\S+\.svg)\)", files[report.RESULTS / "README.md"])
    drawn = {path.name for path in report.RESULTS.glob("*.svg")}
    assert drawn == {*images, "example.svg"}


def test_numbers_in_the_findings_are_fields():
    text = (ROOT / report.FINDINGS).read_text(encoding="utf-8").split("\n## verdict\n")[1]
    text = re.sub(rf"\{{[^{{}}]*\}}|\]\(\S+\)|{NOT_OURS}|{NAMES}", "", text)
    assert not [line for line in text.splitlines() if re.search(r"\d", line)]


FILLED = {
    "value toy ce x:.1%": "60.0 %",
    "value toy.2 b/30/ce x:+.1f": "+3.0",
    'value toy "perce, cap 2" y:.0f': "3",
    "cell toy ce x": "0.600 (0.500 to 0.700)",
    "cell toy.2 a x": "+1.0 [-1.0, +3.0]",  # the first label is enough
    'relative_gain toy "perce, cap 2" x over toy ce x:+.1%': "+16.7 %",
    "change toy.2 b x minus toy.2 a x:+.2f": "+2.00",
    'wins toy "perce, cap 2" x over toy ce x': "1 of 2",  # not the tie
    "significance toy.2 a x": "not significant",
    "significance toy.2 b x": "significant",
}
WRONG = {"valu toy ce x": "valu", "value no ce x": "no.json", "value toy.3 ce x": "range"}
WRONG |= {"value toy c x": "ce", "value toy ce z": "'z'", "value toy ce": "column"}
# a word of the error message
WRONG |= {"value toy ce x:q": "format", 'value toy "ce x': "quotation"}


@pytest.mark.parametrize("field", FILLED)
def test_a_field_is_filled_from_the_records(folder, field):
    assert report.fill(f"a {{{field}}} b") == f"a {FILLED[field]} b"


@pytest.mark.parametrize("field", WRONG)
def test_a_wrong_field_is_named_in_one_line(folder, field):
    with pytest.raises(UserError) as error:
        report.fill(f"a {{{field}}} b")
    _, reason = str(error.value).split(f"findings.md: {{{field}}}: ")
    assert WRONG[field] in reason and "\n" not in reason


def test_marked_parts_of_a_readme_are_filled(folder):
    (folder / "walk.txt").write_text("\n=== A. One ===\n\na\n\n=== B. Two ===\n\n b\n\n")
    mark = "<!-- {0}: note -->\nold\n<!-- end of {0} -->\n<!-- test: c -->\n".format
    text = report.with_parts(mark("claims") + mark("walk B") + mark("walk"))
    assert "old" not in text and text.count("<!-- test: c -->") == 3 and "-->\n0.6\n<!--" in text
    assert "-->\n```text\n=== B. Two ===\n\n b\n```\n<!--" in text and text.count("One") == 1
    assert report.with_parts(text.replace("0.6\n", "")) == text
    for name, reason in [("nothing", "nothing.txt"), ("walk C", "walk.txt has no section C")]:
        with pytest.raises(UserError, match=reason):
            report.with_parts(mark(name))


def test_a_record_comes_back_and_is_shown(folder):
    one, two = [table["rows"] for table in records.read("toy")["tables"]]
    assert one[0] == {"labels": ["ce"], "seeds": [{"x": 0.5}, {"x": 0.7}]}
    assert two[1] == {"labels": ["b", "30", "ce"], "seeds": [{"x": [3, 1, 5]}]}
    # one line per seed
    assert '\n      {"x": 0.7, "y": 3.25}\n' in (folder / "toy.json").read_text()
    assert json.loads(records.dump({"a": 2 / 3, "b": float("nan")})) == {"a": 0.6666667, "b": None}
    text = report.results_readme()
    assert "- [A toy (`toy`)](#a-toy-toy)\n\n## A toy (`toy`)\n\nMade by `python" in text
    assert "commit 0123456, now." in text and "One. 2 seeds" in text and "\n\nTwo.\n" in text
    assert "\n|---|---|---|\n| CE | 0.600 (0.500 to 0.700) |  |\n" in text
    assert "| setting | steps | loss | x |\n|---|---|---|---|\n| a | 30 | CE | +1.0 [" in text


def test_cells_and_labels():
    assert tabulate.named("rouge_l, ce") == "ROUGE-L F of generated text, CE"
    cells = [[0.5], [18664], [0.5, 0.52], [1.0, 2.0, 3.0], [(0.1, -0.2, 0.3)], []]
    texts = ["0.50", "18,664", "0.51 (0.50 to 0.52)", "2.00 ± 2.48", "+0.10 [-0.20, +0.30]", ""]
    assert [tabulate.cell(figures, 2) for figures in cells] == texts  # 2.48 = 4.303 / sqrt(3)
    turned = records.table("", ["a"], {"ce": [{"a": 1.0}]}, "corner", transposed=True)
    assert tabulate.texts(turned) == [["corner", "CE"], ["a", "1.000"]]
    rows = {n: [{"a": 1.0}] * n for n in [1, 5, 10, 7]}
    assert "5 to 10 seeds" in tabulate.caption(records.table("", ["a"], rows))


def test_a_chart_draws_its_values():
    bars = {"perce": [[30, [1, -1, 2]], [60, [0, -1, 1]]]}
    svg = charts.svg(records.chart("c", "x", "y", {"steps": bars, "users": bars}), "alt")
    assert svg.count("<g ") == svg.count('points="8.0,80.7 342.0,155.3"') == 2
    assert svg.count("M8.0 230.0V6.0M342.0 230.0V80.7") == 2 and ">0</text>" in svg
    lines = {"ce": [[1, 2, 4], [10, 3, 3], [100, 6, 6]], "<&>": [[1, 2], [100, 5]]}
    svg = charts.svg(records.chart("c", "x & y", "logp", {"": lines}, log=True), "a < b")
    texts = {element.text for element in ElementTree.fromstring(svg).iter()}
    assert {"a < b", "x & y", "<&>", "log P with persona, nats/token", "10", "CE"} <= texts
    first, middle, last = re.search('points="(.*?)"', svg)[1].split()
    assert middle == f"358.5,{first.split(',')[1]}" and last.startswith("710.5,6.0")  # 3, 3 and 6
