"""All code blocks in the two READMEs run, all links work, and recorded parts are up to date."""

import json
import math
import re
import shlex
import shutil
import subprocess

import pytest
import torch

from perce_mini.experiments import report
from perce_mini.hf.tokenizer import PLAIN
from perce_mini.rows import read_row
from perce_mini.runtime import checkpoint
from tests.conftest import ROOT, run_inside, start_process
from tests.test_data import AUTHORS, ITEMS, USER_KEYS, changes, make_repository, official
from tests.test_distributed import be_one_of_two, free_port
from tests.test_hf import QWEN3, write_folder

TINY_TRAINING = ["--steps", "2", "--batch-size", "2", "--eval-examples", "1", "--device", "cpu"]
README = (ROOT / "README.md").read_text(encoding="utf-8")
READ_ALONG = (ROOT / "perce_mini/README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^ *```(\w+)\n(.*?)^ *```", README, flags=re.S | re.M)


def blocks(language):
    return [text for kind, text in BLOCKS if kind == language]


(RECIPE,) = [block for block in blocks("bash") if "for task in" in block]


# -------------------------------------------------------------------------------------- code blocks


def somebody_elses_setup():
    """Make a causal LM that is not ours, with a loader and an optimizer as in the README."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Embedding(20, 8), torch.nn.Linear(8, 20))
    ids, labels = torch.randint(0, 20, (2, 9)), torch.full((2, 9), -100)
    labels[:, 5:] = torch.randint(0, 20, (2, 4))
    loader = [(ids, labels, ids[:, 3:], labels[:, 3:])] * 3
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    return {"torch": torch, "model": model, "loader": loader, "optimizer": optimizer}


def test_the_method_by_hand():
    (code,) = [code for code in blocks("python") if "with_persona" in code]
    exec(code, {})
    rows = re.findall(r'^\| "(?:Howdy|,|sir)" \| (.*) \|$', README, flags=re.M)
    assert len(rows) == 3
    for row in rows:
        p, _, _, weight, nll, product = row.split(" | ")
        assert float(nll) == pytest.approx(-math.log(float(p)), abs=6e-4)
        assert float(product) == pytest.approx(float(weight.split()[0]) * float(nll), abs=2e-3)


def test_the_trainer_of_ones_own():
    (code,) = [code for code in blocks("python") if "in loader" in code]
    names = somebody_elses_setup()
    before = names["model"][1].weight.clone()
    exec(code, names)
    assert names["loss"].isfinite() and not torch.equal(before, names["model"][1].weight)


def test_rows_of_the_readmes_are_rows():
    (line,) = blocks("json")
    read_row(line.encode(), "README.md")
    text = (ROOT / "data/README.md").read_text(encoding="utf-8")
    row = read_row(re.search(r"```json\n(.*?)```", text, flags=re.S)[1].encode(), "data/README.md")
    assert [row["response"][a:b] for a, b in row["personal"]] == ["Howdy folks"]


def test_the_template_is_the_one_of_plain_text():
    template = json.loads(re.search(r'`(\{"start.*\})`', README)[1])
    assert template == PLAIN | {"end": "<|endoftext|>"}


def write_longlamp(folder, task, rows_per_split):
    """Write rows in the official format: SPLIT.jsonl for {split: number of rows}."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, n in rows_per_split.items():
        rows = []
        for i in range(n):
            user = {USER_KEYS[task]: f"{split} {i}"}
            rows.append(official(task, output=f"Howdy, kettle {i} boils.", **user))
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def made_tiny(words):
    """Add flags that make a command run in a second."""
    if "eval.py" in words:
        return [*words, "--examples", "2", "--max-new-tokens", "5", "--device", "cpu"]
    if "train.py" in words and "--epochs" not in words:
        return words + TINY_TRAINING
    if "perce_mini.walkthrough" in words:
        return [*words, "--row", "1"]
    return words


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A copy of the project to run commands in."""
    ignored = shutil.ignore_patterns(".git", "out", "__pycache__", "*.jsonl", "key")
    shutil.copytree(ROOT, tmp_path / "project", ignore=ignored)
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def test_shell_blocks_run_in_order(world, project, tmp_path):
    """Skip commands that install packages or run tests: both have already been done."""
    for split in ["train", "val", "test"]:
        shutil.copy(world / f"{split}.jsonl", project / "data/personas")
    write_longlamp(project, "review", {"train": 8, "val": 8, "test": 8})
    hf_config = {"eos_token_id": 257, "max_position_embeddings": 4096}
    places = {
        "PATH_TO_A_REPOSITORY": make_repository(tmp_path / "git", changes(*AUTHORS, n=5)),
        "LONGLAMP_TRAIN": "train.jsonl",
        "LONGLAMP_VAL": "val.jsonl",
        "LONGLAMP_TEST": "test.jsonl",
        "MODEL_FOLDER": write_folder(tmp_path / "model", hf_config),
    }
    processes = []
    commands = "".join(block for block in blocks("bash") if block != RECIPE)
    for command in commands.replace("&&", "\n").splitlines():
        words = [str(places.get(word, word)) for word in shlex.split(command, comments=True)]
        if not words or words[0] in ("git", "cd", "source", "pip"):
            continue
        if words[2:3] in (["venv"], ["pytest"]):
            continue
        words = made_tiny(words)
        if words[0] == "torchrun":  # two processes, alongside the next commands
            meeting = {"two": (free_port(), words[4:])}
            processes += [start_process(be_one_of_two, rank, meeting) for rank in "01"]
        else:
            run_inside(words, check=True)
    results = [process.get(120)["two"] for process in processes]
    assert [result["status"] for result in results] == [0, 0], results
    files = "heat.html perce/heat.html ce/checkpoint.pt commits/train.jsonl lora/ce/results.json"
    for file in [*files.split(), "my-model/model.safetensors"]:
        assert (project / "out" / file).exists(), file
    exec([code for code in blocks("python") if "log.jsonl" in code][0].replace("  ", ""), {})


def test_the_recipe_for_longlamp(project, tmp_path, capfd):
    """bash unrolls the loops and prints the commands, which then run with a tiny random Qwen3."""
    for task in ITEMS:
        write_longlamp(project / "longlamp" / task, task, {"train": 6, "val": 2, "test": 4})
    change = QWEN3 | {"eos_token_id": 257, "max_position_embeddings": 8192}
    block = RECIPE.replace("MODEL_FOLDER", str(write_folder(tmp_path / "model", change)))
    echo = 'python() { echo "python $@"; }\n'
    result = subprocess.run(["bash", "-c", echo + block], capture_output=True, text=True)
    for command in result.stdout.splitlines():
        run_inside(made_tiny(command.split()))
    for task in ITEMS:
        for seed in [0, 1]:
            settings = checkpoint.read(project / f"out/{task}-{seed}/perce")["settings"]
            assert (settings.seed, settings.steps, settings.lora_rank) == (seed, 3, 16)
            assert (project / f"out/{task}-{seed}.json").exists()
    assert capfd.readouterr().out.count("perce minus") == 6  # one verdict per task and seed


def test_the_measured_memory_and_speed_are_those_of_the_record():
    record = json.loads((ROOT / "data/results/gpu.json").read_text())
    (row,) = [row for row in record["tables"][0]["rows"] if row["labels"] == ["Qwen3-4B, LoRA 16"]]
    (values,) = row["seeds"]
    section = " ".join(README.split("### Real models on one GPU")[1].split())  # without line breaks
    texts = [f"{values['GB, PerCE']:.1f} GB", f"{values['tokens/s, CE']:,}"]
    for text in [*texts, f"PerCE takes {values['PerCE / CE, time']:.2f} times"]:
        assert text in section, text


# ------------------------------------------------------------------------ recorded parts and links


@pytest.mark.parametrize("path", report.READMES)
def test_recorded_parts_are_up_to_date(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    text = path.read_text(encoding="utf-8")
    assert report.with_parts(text) == text, "run python -m perce_mini.experiments --readme"


def test_every_picture_and_link_exists():
    for folder, text in [(ROOT, README), (ROOT / "perce_mini", READ_ALONG)]:
        for path in re.findall(r"\]\((?!http)(.*?)\)", text):
            assert (folder / path.split("#")[0]).exists(), path


def test_every_file_of_the_package_is_named():
    for path in [*ROOT.glob("*.py"), *(ROOT / "perce_mini").glob("*.py")]:
        assert path.name == "__init__.py" or path.name in README, path


def test_the_code_in_the_read_along_is_the_code_of_the_files():
    sections = re.split(r"^## \d\. \[`(\w+\.py)`\]", READ_ALONG, flags=re.M)[1:]
    n = 0
    for name, text in zip(sections[::2], sections[1::2]):
        folder = ROOT if name == "train.py" else ROOT / "perce_mini"
        source = (folder / name).read_text(encoding="utf-8")
        for code in re.findall(r"```python\n(.*?)```", text, flags=re.S):
            assert code in source, (name, code)
            n += 1
    assert n >= 6
