"""Every code block of the README runs, every picture exists, and every recorded part of it is the recorded one."""

import json
import math
import re
import shlex
import shutil
import subprocess
import sys

import pytest
import torch

import train
from perce_mini import checkpoint
from perce_mini.dataset import read_row
from perce_mini.experiments import report
from perce_mini.hf.tokenizer import PLAIN
from perce_mini.percontrast import CLIP_MAX, CLIP_MIN
from perce_mini.trainer import Settings
from tests.conftest import ROOT, TINY, run_inside, start_process
from tests.test_distributed import be_one_of_two, free_port
from tests.test_hf import write_folder

TINY_STEPS = ["--steps", "2", "--batch-size", "2", "--device", "cpu", "--eval-examples", "1"]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, flags=re.S)


def blocks(language):
    return [text for kind, text in BLOCKS if kind == language]


def test_every_block_is_of_a_kind_that_is_tested_here():
    assert {kind for kind, _ in BLOCKS} <= {"python", "bash", "text"}
    assert len(blocks("python")) >= 2 and len(blocks("bash")) >= 4


def somebody_elses_setup():
    """A causal LM of its own kind, a loader and an optimizer, as the README's trainer has them."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Embedding(20, 8), torch.nn.Linear(8, 20))
    ids, labels = torch.randint(0, 20, (2, 9)), torch.full((2, 9), -100)
    labels[:, 5:] = torch.randint(0, 20, (2, 4))
    loader = [(ids, labels, ids[:, 3:], labels[:, 3:])] * 3
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    return {"torch": torch, "model": model, "loader": loader, "optimizer": optimizer}


@pytest.mark.parametrize("code", [code for code in blocks("python") if "transformers" not in code])
def test_python_blocks_run(code):
    """What needs `transformers` runs in tests/reference."""
    names = somebody_elses_setup()
    before = names["model"][1].weight.clone()
    exec(code, names)
    if "optimizer" in code:
        assert names["loss"].isfinite() and not torch.equal(before, names["model"][1].weight)
        assert len([line for line in code.splitlines() if line.strip()]) <= 10


def test_the_lines_for_ones_own_trainer_are_few():
    assert len(re.search(r"for persona_ids.*?zero_grad\(\)", README, flags=re.S)[0].splitlines()) <= 10


def reviews(n):
    item = {"overall": "5", "description": "d", "summary": "s", "reviewText": "It is bad, honestly."}
    row = {"input": "Generate the review text", "output": "It is good, honestly.", "profile": [item]}
    return [{"reviewerId": f"r{i}"} | row for i in range(n)]


def make_history(folder):
    """A git repository of eight authors."""
    subprocess.run(["git", "init", "-q", folder], check=True)
    for i in range(40):
        who = ["-c", f"user.name=u{i % 8}", "-c", f"user.email=u{i % 8}@x", "-c", "commit.gpgsign=false"]
        message = f"Change {i}\n\nBecause the old way number {i} was slow."
        command = ["git", "-C", folder, *who, "commit", "-q", "--allow-empty", "-m", message]
        subprocess.run(command, check=True)
    return folder


def with_tiny_settings(words):
    """The same command, so that it takes a second."""
    if "--epochs" in words:
        words = [word for before, word in zip(["", *words], words) if "--epochs" not in (before, word)]
    if "train.py" in words:
        words += TINY_STEPS if "--init" in words else TINY
    if "perce_mini.hf.compare" in words:
        words += [*TINY_STEPS[:-2], "--examples", "2", "--losses", "ce", "perce"]
    if "perce_mini.sample" in words:
        words += ["--device", "cpu"]
    if "eval.py" in words:
        words += ["--examples", "2", "--max-new-tokens", "5", "--device", "cpu"]
    if "reviews_train.json" in words:  # more files, so that there is something to score
        words.insert(words.index("reviews_train.json"), "reviews_test.json")
        words.insert(words.index("reviews_train.json"), "reviews_val.json")
    return words


def test_shell_blocks_run(world, tmp_path, monkeypatch):
    """Every command of every shell block, in order, in a copy of the project; installing is what CI does first."""
    project = tmp_path / "project"
    ignored = shutil.ignore_patterns(".git", "out", "__pycache__", "*.jsonl", "key")
    shutil.copytree(ROOT, project, ignore=ignored)
    for split in ["base", "train", "val", "test"]:
        shutil.copy(world / f"{split}.jsonl", project / "data/personas")
    for split in ["train", "val", "test"]:
        (project / f"reviews_{split}.json").write_text(json.dumps(reviews(8)))
    monkeypatch.chdir(project)
    places = {
        "PATH_TO_A_REPOSITORY": make_history(tmp_path / "repository"),
        "LONGLAMP_FILE": "reviews_train.json",
        "MODEL_FOLDER": write_folder(tmp_path / "model", {"eos_token_id": 257, "max_position_embeddings": 4096}),
    }
    ran, beside = [], []
    for command in "".join(blocks("bash")).replace("&&", "\n").splitlines():
        words = [str(places.get(word, word)) for word in shlex.split(command, comments=True)]
        if words[0] in ("git", "cd", "source", "pip") or words[1:3] in (["-m", "venv"], ["-m", "pytest"]):
            continue
        ran += words
        words = with_tiny_settings(words)
        if words[:4] == ["torchrun", "--nproc_per_node", "2", "train.py"]:  # two processes, beside what follows
            meet = {"two": (free_port(), words[4:])}
            beside += [start_process(be_one_of_two, rank, meet) for rank in "01"]
        else:
            run_inside(words, check=True)
    results = [process.result()["two"] for process in beside]
    assert [result["status"] for result in results] == [0, 0], results
    assert ran.count("train.py") >= 5 and ran.count("eval.py") >= 2 and "perce_mini.hf.compare" in ran
    for file in ["out/heat.html", "out/perce/heat.html", "out/real.json", "out/my-model/model.safetensors"]:
        assert (project / file).exists(), file
    found = json.loads((project / "out/real.json").read_text())["tables"][0]
    assert "2 held-out examples" in found["caption"] and set(found["rows"]) == {"before", "ce", "perce"}


def test_the_recorded_parts_are_the_recorded_ones(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert report.with_parts(README) == README, "run python -m perce_mini.experiments --readme"


PAPER = ["2603.06595", "Eq. 2, 7, 8", "4 to 14 B"]  # what it says of itself
NAMES = r"BM25|door \d|Llama 3|Qwen3|SmolLM2|^\d\. "


def test_every_number_is_computed_or_recorded():
    """Beside code, which runs, and recorded parts."""
    model, args = checkpoint.load(ROOT / "data/base")[0], train.parse_args
    numbers = {
        f"clipped to [{CLIP_MIN:g}, {CLIP_MAX:g}]",
        f"{model.n_parameters() / 1e6:.2f} M parameters",
        f"top-{Settings.top_k} profile",
        "predicted from position t, −100 where",
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["train.py"])
        numbers.add(f"at temperature {args().temperature:g}")
    text = re.sub(r"```.*?```|<!-- (\w+): .*?<!-- end of \1 -->", "", README, flags=re.S)
    rows = [line.split(" | ") for line in re.findall(r'^\| "\S+" \| (.*) \|$', text, flags=re.M)]
    weighted, nll = [], []
    for row in rows:
        with_it, without = float(row[0]), float(row[1])
        pir, loss = math.log(with_it / without), -math.log(with_it)
        weight = min(max(pir, CLIP_MIN), CLIP_MAX)
        nll.append(loss)
        weighted.append(weight * loss)
        found = [float(re.sub(r"ln 5 = | \(floor\)", "", cell).replace("−", "-")) for cell in row[2:]]
        assert found == [round(x, 3) for x in [pir, weight, loss, weight * loss]]
    assert len(rows) == 3
    numbers.add(f"The sum, {sum(weighted):.3f}, over three tokens is **{sum(weighted) / 3:.3f}**")
    numbers.add(f"CE would be {sum(nll) / 3:.3f}.")
    numbers.add("P = {}, {}, {}; without it, {}, {}, {}.".format(*(row[i] for i in [0, 1] for row in rows)))
    text = re.sub(r'^\| "\S+" \| .*$', "", text, flags=re.M)
    for words in [*numbers, *PAPER]:
        assert words in text, words
        text = text.replace(words, "")
    text = re.sub(r"\]\(.*?\)|<.*?>", "", text)
    left = [line for line in text.splitlines() if re.search(r"\d", re.sub(NAMES, "", line))]
    assert not left


def test_every_picture_and_link_exists():
    for path in re.findall(r'(?:src|srcset)="(.*?)"|\]\((?!http)(.*?)\)', README):
        assert (ROOT / "".join(path).split("#")[0]).exists(), path


def test_it_is_short():
    assert len(README.splitlines()) <= 230 and len(README.encode()) <= 14_000


def test_the_template_is_the_one_of_plain_text():
    assert json.loads(re.search(r'`(\{"start.*\})`', README)[1]) == PLAIN | {"end": "<|endoftext|>"}


def test_the_row_of_the_data_readme_is_a_row():
    text = (ROOT / "data/README.md").read_text(encoding="utf-8")
    row = read_row(re.search(r"```json\n(.*?)```", text, flags=re.S)[1].encode(), "data/README.md")
    assert [row["response"][a:b] for a, b in row["personal"]] == ["Howdy folks"]


def test_every_file_of_the_reading_path_stands_in_the_tour():
    for path in [*ROOT.glob("*.py"), *(ROOT / "perce_mini").glob("*.py")]:
        assert path.name == "__init__.py" or f"`{path.name}`" in README or f"/{path.name})" in README, path
