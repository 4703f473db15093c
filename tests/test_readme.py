"""Every code block of the READMEs runs, and every recorded figure in them is the recorded one."""

import json
import re
import runpy
import shlex
import shutil
import subprocess
import sys

import pytest
import torch

from perce_mini import pretrained, report
from perce_mini.dataset import read_row
from tests.conftest import ROOT, TINY
from tests.test_pretrained import write_folder

TINY_STEPS = ["--steps", "2", "--batch-size", "2", "--device", "cpu", "--eval-examples", "1"]

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, flags=re.S)


def blocks(language):
    return [text for kind, text in BLOCKS if kind == language]


def test_every_block_is_of_a_kind_that_is_tested_here():
    assert {kind for kind, _ in BLOCKS} <= {"python", "bash", "json", "text"}
    assert len(blocks("python")) >= 2 and len(blocks("bash")) >= 4


def somebody_elses_setup():
    """A causal LM of its own kind, a loader and an optimizer, as the README's trainer has them."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Embedding(20, 8), torch.nn.Linear(8, 20))
    ids, labels = torch.randint(0, 20, (2, 9)), torch.full((2, 9), -100)
    labels[:, 5:] = torch.randint(0, 20, (2, 4))
    loader = [(ids, labels, ids[:, 3:], labels[:, 3:])] * 3
    return {"torch": torch, "model": model, "loader": loader, "optimizer": torch.optim.AdamW(model.parameters(), lr=0.1)}


@pytest.mark.parametrize("code", blocks("python"))
def test_python_blocks_run(code):
    names = somebody_elses_setup()
    before = names["model"][1].weight.clone()
    exec(code, names)
    if "optimizer" in code:
        assert names["loss"].isfinite() and not torch.equal(before, names["model"][1].weight)
        assert len([line for line in code.splitlines() if line.strip()]) <= 10


def test_the_lines_for_ones_own_trainer_are_few():
    assert len(re.search(r"for persona_ids.*?zero_grad\(\)", README, flags=re.S)[0].splitlines()) <= 10


run = subprocess.run


def inside(command, **options):
    """subprocess.run, but a python command runs inside this process: importing torch again for every one would take longer than the commands."""
    words = [*map(str, command)]
    if words[0] not in ("python", sys.executable) or "torch.distributed.run" in words:
        return run([sys.executable, *words[1:]] if words[0] == "torchrun" else words, **options)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(subprocess, "run", inside)
            if words[1] == "-m":
                patch.setattr(sys, "argv", words[2:])
                patch.delitem(sys.modules, words[2], raising=False)
                runpy.run_module(words[2], run_name="__main__")
            else:
                patch.setattr(sys, "argv", words[1:])
                runpy.run_path(words[1], run_name="__main__")
    except SystemExit as stop:
        assert not stop.code, words
    return subprocess.CompletedProcess(words, 0)


def test_shell_blocks_run(world, tmp_path, monkeypatch):
    """Every command of every shell block, in order, in a copy of the project, with tiny settings added; installing is what CI does first."""
    project = tmp_path / "project"
    shutil.copytree(ROOT, project, ignore=shutil.ignore_patterns(".git", "out", "__pycache__", "*.jsonl", "key"))
    for split in ["base", "train", "val", "test"]:
        shutil.copy(world / f"{split}.jsonl", project / "data/personas")
    (project / "reviews_train.json").write_text(json.dumps([{"reviewerId": f"r{i}", "input": "Generate the review text", "output": "It is good, honestly.", "profile": [
        {"overall": "5", "description": "d", "summary": "s", "reviewText": "It is bad, honestly."}]} for i in range(8)]))  # fmt: skip
    repository = tmp_path / "repository"
    subprocess.run(["git", "init", "-q", repository], check=True)
    for i in range(40):
        who = ["-c", f"user.name=u{i % 8}", "-c", f"user.email=u{i % 8}@x", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", "-C", repository, *who, "commit", "-q", "--allow-empty", "-m", f"Change {i}\n\nBecause the old way number {i} was slow."], check=True)
    monkeypatch.chdir(project)
    folder = write_folder(tmp_path / "model", {"eos_token_id": 257, "max_position_embeddings": 4096})
    ran = []
    for line in "".join(blocks("bash")).splitlines():
        for command in line.split("&&"):
            words = shlex.split(command.replace("PATH_TO_A_REPOSITORY", str(repository)).replace("LONGLAMP_FILE", "reviews_train.json").replace("MODEL_FOLDER", str(folder)))
            if words[0] == "pip" or words[1:] == ["-m", "pytest"]:
                continue
            if words[0] == "torchrun":
                words[1:1] = ["-m", "torch.distributed.run"]
            if "train.py" in words:
                words += TINY_STEPS if "--init" in words else TINY
            if "perce_mini.real" in words:
                words += [*TINY_STEPS[:-2], "--examples", "2", "--seeds", "2"]
            if words[1] == "eval.py":
                words += ["--examples", "2", "--max-new-tokens", "5", "--device", "cpu"]
            if words[2:3] and "longlamp" in words[1]:  # more files, so that there is something to score
                others = ["reviews_val.json", "reviews_test.json"]
                for other in others:
                    shutil.copy(project / "reviews_train.json", project / other)
                at = words.index("reviews_train.json")
                words[at:at] = others
            inside(words, check=True)
            ran += words
    assert ran.count("train.py") >= 6 and ran.count("eval.py") >= 2 and "perce_mini.real" in ran
    assert (project / "out/heat.html").exists() and (project / "out/scores.json").exists()
    for recorded in (project / "data/results").glob("real-*.json"):
        recorded.unlink()
    shutil.copy("out/real.json", "data/results/real-texts.json")
    text = report.real_text()  # what real.py has written is what the README would say
    assert "| before | CE | PerCE | PerCE against a stranger |" in text and "2 held-out examples" in text and "3e-05, 0.0001" in text and "2 seeds" in text
    assert text.count("[") == 10  # of two figures: PerCE, and against a stranger, with both seeds; the model before, once


def test_the_recorded_figures_are_the_ones_in_the_readme(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert report.with_parts(README) == README, "run python -m perce_mini.experiments --readme"


def test_the_template_is_the_one_of_plain_text():
    assert json.loads(blocks("json")[0]) == pretrained.PLAIN | {"end": "<|endoftext|>"}


def test_the_row_of_the_data_readme_is_a_row():
    text = (ROOT / "data/README.md").read_text(encoding="utf-8")
    row = read_row(re.search(r"```json\n(.*?)```", text, flags=re.S)[1].encode(), "data/README.md")
    assert [row["response"][a:b] for a, b in row["personal"]] == ["Howdy folks"]


def test_every_file_of_the_project_stands_in_the_tour():
    for path in [*ROOT.glob("*.py"), *(ROOT / "perce_mini").glob("*.py")]:
        assert path.name == "__init__.py" or path.name in README, path
