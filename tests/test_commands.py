"""train.py and eval.py as commands: what they write, what stops them, what they never lose."""

import json
import os
import runpy
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial

import pytest
import torch

import eval as evaluation
import train
from perce_mini import base
from perce_mini.runtime import checkpoint, cli, flags
from perce_mini.runtime import run as training
from perce_mini.runtime.errors import UserError
from tests.conftest import ROOT, TINY, call, press_ctrl_c, read_log, same, spy

REPORTS = ["heat.html", "predictions.jsonl", "results.json"]


@pytest.fixture
def run_train(world, start, tmp_path):
    """Run train.py for two steps from the tiny base model into tmp_path/run without scoring."""
    usual = ["--data", world, "--init", start, "--out", tmp_path / "run", "--device", "cpu"]
    usual += ["--steps", 2, "--batch-size", 4, "--eval-examples", 0]
    return lambda *args: call(train.main, *usual, *args)


def reverse_lines(file):
    file.write_text("".join(file.read_text().splitlines(keepends=True)[::-1]))


# --------------------------------------------------------------------------------- successful runs


def test_train_writes_what_it_says(trained, start):
    out = (trained / "out.txt").read_text()
    # the first line contains the data path, which may be long
    first, *lines = out.splitlines()
    assert first.startswith("training on") and max(map(len, lines)) <= 80
    for words in ["ROUGE-L", "for user test-", "without a profile", "out/perce/heat.html"]:
        assert words in out
    for loss, low, high in [("ce", 1, 1), ("perce", 0.8, 5)]:
        folder = trained / "out" / loss
        assert sorted(os.listdir(folder)) == sorted(["checkpoint.pt", "log.jsonl", *REPORTS])
        log = read_log(folder)
        assert [line["step"] for line in log] == [1, 2, 3, 4]
        assert all(low <= round(line["weight"], 6) <= high for line in log)
        scores = json.loads((folder / "results.json").read_text())["runs"]
        assert list(scores) == [f"out/{start.name}", f"out/{loss}"]
        assert f"{scores[f'out/{loss}']['all']['logp']:.3f}" in out
        assert len((folder / "predictions.jsonl").read_text().splitlines()) == 2 * 3


def test_the_file_that_is_scored_is_named(run_train, world, tmp_path):
    done = run_train("--eval-examples", 2)
    assert done.out.startswith(f"training on {world}/train.jsonl, scoring test.jsonl\n")
    texts = (tmp_path / "run/predictions.jsonl").read_text().splitlines()
    assert all(json.loads(line)["user"].startswith("test") for line in texts)
    silent = run_train("--eval-examples", 2, "--max-new-tokens", 0, "--overwrite")
    assert silent.status == 0 and "without a profile" not in silent.out, silent.err
    assert not (tmp_path / "run/predictions.jsonl").exists()


def test_several_losses_epochs_and_examples(world, start, tmp_path):
    usual = ["--data", world, "--init", start, "--out", tmp_path, "--eval-examples", 0]
    length = ["--epochs", 2, "--examples", 10, "--batch-size", 4, "--grad-accum", 2]
    assert call(train.main, *usual, *length, "--loss", "lossce", "entce").status == 0
    for loss in ["lossce", "entce"]:  # 3 micro-batches make 2 steps per epoch
        assert checkpoint.read(tmp_path / loss)["step"] == 4


def test_flags_reach_the_run(run_train, monkeypatch):
    values = {"lr": 0.01, "warmup": 0.25, "batch_size": 2, "grad_accum": 3, "seed": 5, "steps": 1}
    values |= {"clip_min": 0.5, "clip_max": 2.5, "contrast": "stranger", "loss": "lossce"}
    values |= {"examples": 9, "top_k": 2, "lora_rank": 2, "ce_first": 0.5}
    words = [word for name in values for word in [f"--{name.replace('_', '-')}", values[name]]]
    calls = spy(monkeypatch, train, "fit")
    done = run_train(*words, "--recompute", "--save-every", 7)
    assert done.status == 0, done.err
    model, _, examples, settings, _, save_every, _ = calls[0][0]
    assert values.items() <= vars(settings).items()
    assert (model.recompute, save_every, len(examples)) == (True, 7, 9)
    assert not model.embedding.weight.requires_grad  # LoRA
    assert {len(e.profile_indices) for e in examples} == {0, 2}
    assert any(e.row.plain_profile for e in examples)


@pytest.mark.parametrize("script", [train, evaluation])
def test_flags_reach_the_scoring(run_train, trained, world, tmp_path, monkeypatch, script):
    scored, encoded = (spy(monkeypatch, script, name) for name in ["evaluate", "encode_rows"])
    words, n = ["--temperature", 0.7, "--seed", 3, "--top-k", 2, "--contrast", "stranger"], 5
    words += ["--max-new-tokens", n, "--eval-batch-size", 2]
    if script is train:
        done = run_train(*words, "--eval-examples", 3)
    else:
        page = tmp_path / "run/heat.html"
        words += ["--data", world, "--heatmap", page, "--device", "cpu"]
        done = call(evaluation.main, trained / "out/ce", *words)
    assert done.status == 0, done.err
    assert all(args[3:6] == (n, 0.7, 3) and args[7] == 2 for args, _ in scored)
    assert encoded[-1][0][3:] == (2, n)
    assert "3 of 3" in done.err  # rows without a stranger
    assert "stranger" in (tmp_path / "run/heat.html").read_text()


def test_default_data_are_generated_once_and_have_a_base_model(start, tmp_path, monkeypatch):
    data = tmp_path / "personas"
    for module in [flags, train]:
        monkeypatch.setattr(module, "DEFAULT_DATA", data)
        monkeypatch.setattr(module, "SHIPPED_BASE", start)
    few = partial(train.prepare.splits, train=4, held_out=1)
    monkeypatch.setattr(train.prepare, "splits", few)
    usual = ["--steps", 1, "--batch-size", 2, "--eval-examples", 0, "--out", tmp_path / "run"]
    assert call(train.main, *usual).status == 0
    files = ["familiar.jsonl", "test.jsonl", "train.jsonl", "val.jsonl"]
    assert sorted(os.listdir(data)) == files
    monkeypatch.setattr(train.prepare, "splits", lambda: pytest.fail("generated again"))
    monkeypatch.chdir(data)
    # the same folder, spelled differently
    again = call(train.main, "--data", "../personas", *usual, "--overwrite")
    assert again.status == 0, again.err


def test_own_data_get_a_base_model_first(world, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(base, "SETTINGS", replace(base.SETTINGS, steps=2, batch_size=4))
    monkeypatch.setattr(base, "VOCAB_SIZE", 300)
    for name, size in {"n_layer": 1, "n_embd": 16, "block_size": 1100}.items():
        monkeypatch.setitem(base.SHAPE, name, size)
    data = shutil.copytree(world, tmp_path / "mine")
    row = json.loads((data / "test.jsonl").read_text().splitlines()[0])
    (data / "test.jsonl").write_text(json.dumps(row | {"query": "long " * 950}))
    assert call(train.main, "--data", data, *TINY).is_refusal("test.jsonl:1", "1100")
    assert not (tmp_path / "out").exists()

    words = ["--data", data, *TINY, "--eval-examples", 0]
    press_ctrl_c(monkeypatch, step=1)
    stopped = call(train.main, *words)
    assert stopped.status == 130 and "--resume" not in stopped.err
    assert checkpoint.read(tmp_path / "out/base-mine")["step"] == 1
    assert call(train.main, *words).status == 0  # resumes the base model
    assert checkpoint.read(tmp_path / "out/base-mine")["step"] == 2
    reverse_lines(data / "base.jsonl")
    refused = call(train.main, *words, "--overwrite")
    assert refused.is_refusal("out/base-mine", "base.jsonl")
    assert checkpoint.read(tmp_path / "out/perce")["step"] == 4


def test_eval_compares_two_runs_and_writes_everything(trained, world, tmp_path):
    folders = [str(trained / "out" / loss) for loss in ["ce", "perce"]]
    scores, texts, page = (tmp_path / "new" / name for name in ["s.json", "t.jsonl", "h.html"])
    usual = ["--data", world, "--examples", 3, "--max-new-tokens", 8, "--device", "cpu"]
    files = ["--json", scores, "--predictions", texts, "--heatmap", page]
    done = call(evaluation.main, *folders, *usual, *files)
    assert done.status == 0 and str(scores) in done.out, done.err
    figures = json.loads(scores.read_text())
    one, two = (figures["runs"][folder]["all"]["logp"] for folder in folders)
    change = figures[f"minus {folders[0]}"][folders[1]]["all"]["logp"]
    assert change["difference"] == pytest.approx(two - one)
    assert len(texts.read_text().splitlines()) == 6 and "perce" in page.read_text()


def test_eval_takes_the_top_k_of_the_last_run(run_train, trained, world, tmp_path, monkeypatch):
    assert run_train("--top-k", 3).status == 0
    encoded = spy(monkeypatch, evaluation, "encode_rows")
    usual = ["--data", world, "--max-new-tokens", 0]
    done = call(evaluation.main, trained / "out/perce", tmp_path / "run", *usual)
    assert [args[3] for args, _ in encoded] == [3, 3] and "ROUGE-L" not in done.out


MODULES = ["base", "sample", "pir", "walkthrough", "hf/__main__", "experiments/__main__"]


@pytest.mark.parametrize("file", ["train", "eval", *(f"perce_mini/{name}" for name in MODULES)])
def test_every_command_has_a_help_and_can_be_interrupted(file, monkeypatch, capsys):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "argv", [file, "-h"])
    for status in [0, 130]:
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(ROOT / f"{file}.py"), run_name="__main__")
        assert (end.value.code or 0) == status
        monkeypatch.setattr(cli.Parser, "parse_args", interrupted)
    assert "--" in capsys.readouterr().out


# ------------------------------------------------------------------------- interrupted and resumed


def test_a_run_that_ctrl_c_stopped_continues_as_if_it_had_not(
    run_train, trained, tmp_path, monkeypatch
):
    """The fixture trained the same runs. Ctrl-C is pressed before the second one has begun."""
    several = ["--steps", 4, "--loss", "ce", "perce", "--out", tmp_path]
    press_ctrl_c(monkeypatch, step=2)
    stopped = run_train(*several)
    assert stopped.status == 130 and "--resume" in stopped.err and "Traceback" not in stopped.err
    assert os.listdir(tmp_path) == ["ce"] and run_train(*several).is_refusal("2 of 4", "--resume")
    steps = spy(monkeypatch, training, "training_step")
    assert run_train(*several, "--resume").status == 0 and len(steps) == 2 + 4
    for loss in ["ce", "perce"]:
        states = [checkpoint.read(folder / loss) for folder in [tmp_path, trained / "out"]]
        for part in ["model", "optimizer", "step", "random"]:
            assert same(states[0][part], states[1][part]), part
    assert [line["step"] for line in read_log(tmp_path / "ce")] == [1, 2, 3, 4]


def test_a_full_disk_keeps_the_last_checkpoint(run_train, tmp_path, monkeypatch):
    real = torch.save

    def full(state, path):
        if state["step"] > 1:
            raise OSError(28, "No space left on device")
        real(state, path)

    monkeypatch.setattr(torch, "save", full)
    result = run_train("--save-every", 1)
    assert result.is_refusal("No space left", "run/checkpoint.pt")
    assert "step 1 is saved" in result.err and "--resume" in result.err
    assert checkpoint.read(tmp_path / "run")["step"] == 1
    assert sorted(os.listdir(tmp_path / "run")) == ["checkpoint.pt", "log.jsonl"]


# ----------------------------------------------------------------------- input is never overwritten


def test_a_finished_run_is_kept(run_train, world, tmp_path, monkeypatch):
    assert run_train().status == 0
    before = (tmp_path / "run/checkpoint.pt").read_bytes()
    assert run_train("--steps", 1).is_refusal("run", "steps 2", "1")
    assert run_train("--resume", "--lr", 0.5).is_refusal("lr 0.004", "0.5")
    data = shutil.copytree(world, tmp_path / "data")
    steps = spy(monkeypatch, training, "training_step")
    # the same run with its rows in another folder
    again = run_train("--data", data, "--eval-examples", 3)
    assert again.status == 0 and "ROUGE-L" in again.out and not steps
    reverse_lines(data / "train.jsonl")
    assert run_train("--data", data, "--resume").is_refusal("rows")
    assert (tmp_path / "run/checkpoint.pt").read_bytes() == before


def test_overwrite_removes_reports_once_the_new_run_is_saved(run_train, tmp_path, monkeypatch):
    assert run_train("--eval-examples", 3).status == 0
    press_ctrl_c(monkeypatch, step=1, times=2)
    assert run_train("--overwrite").status == 130
    assert set(REPORTS) < set(os.listdir(tmp_path / "run"))
    assert run_train("--overwrite", "--steps", 1).status == 0
    assert sorted(os.listdir(tmp_path / "run")) == ["checkpoint.pt", "log.jsonl"]
    assert checkpoint.read(tmp_path / "run")["step"] == 1


@pytest.mark.parametrize("file", ["results.json", "log.jsonl", "config.json"])
def test_a_folder_that_holds_something_else_is_left_alone(run_train, tmp_path, file):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / file).write_text("mine")
    for how in [[], ["--overwrite"]]:
        assert run_train(*how).is_refusal(str(tmp_path / "run"), "--out")
    assert os.listdir(tmp_path / "run") == [file]
    assert (tmp_path / "run" / file).read_text() == "mine"


def test_out_must_be_a_folder_that_can_be_written_and_not_the_start(run_train, start, tmp_path):
    before = (start / "checkpoint.pt").read_bytes()
    (tmp_path / "link").symlink_to(start)
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").touch()
    for out in ["link", "loop", "file", "file/run"]:
        refused = run_train("--out", tmp_path / out, "--overwrite")
        assert refused.is_refusal(str(tmp_path / out))
    assert (start / "checkpoint.pt").read_bytes() == before


@pytest.mark.parametrize("flag", ["--json", "--predictions", "--heatmap"])
def test_eval_replaces_nothing_that_it_reads(trained, world, tmp_path, monkeypatch, flag):
    monkeypatch.setattr(evaluation, "evaluate", lambda *args: pytest.fail("scored"))
    (tmp_path / "link").symlink_to(trained / "out/ce/log.jsonl")
    files = [trained / "out/ce/checkpoint.pt", tmp_path / "link", world / "test.jsonl"]
    for file in files:
        before = file.read_bytes()
        result = call(evaluation.main, trained / "out/ce", "--data", world, flag, file)
        assert result.is_refusal(str(file)) and file.read_bytes() == before


# ------------------------------------------------------------------------------------ invalid input


def test_a_bad_row_ends_in_one_line_before_any_training(run_train, world, tmp_path):
    good, row = (world / "train.jsonl").read_text().splitlines()[:2]
    too_long = json.dumps(json.loads(row) | {"response": "word " * 2000, "personal": []})
    for file, bad in [("train", "{broken"), ("train", too_long), ("test", too_long)]:
        (tmp_path / "train.jsonl").write_text(good)
        (tmp_path / f"{file}.jsonl").write_text(f"{good}\n{bad}")
        refused = run_train("--data", tmp_path, "--eval-examples", 3 if file == "test" else 0)
        assert refused.is_refusal(f"{file}.jsonl:2")
        assert not (tmp_path / "run").exists()


BAD_TRAIN = {
    "--loss dpo": "--loss",
    "--steps 0": "--steps",
    f"--steps {10**400}": "--steps",  # more digits than Python will convert
    "--clip-min 6": "--clip-max 5",
    "--init nowhere": "nowhere",
    "--ce-first 2": "--ce-first",
    "--lr nan": "--lr",
    "--device cuda:99": "cuda:99",
    "--data WORLD/train.jsonl": "train.jsonl",
    "--init FIFO": "checkpoint.pt",
    "--block-size 64": "1100",
}


@pytest.mark.parametrize("words", BAD_TRAIN)
def test_a_bad_flag_of_train_ends_in_one_line(run_train, world, tmp_path, words):
    (tmp_path / "fifo").mkdir()
    os.mkfifo(tmp_path / "fifo/checkpoint.pt")
    flags = words.replace("WORLD", str(world)).replace("FIFO", str(tmp_path / "fifo")).split()
    assert run_train(*flags).is_refusal(BAD_TRAIN[words])
    assert not (tmp_path / "run").exists()


BAD_EVAL = {
    "": "DIR",
    "RUN nowhere": "nowhere",
    "RUN --data /dev/zero": "/dev/zero",
    "RUN --max-new-tokens 9999": "test.jsonl:",
    "RUN --max-new-tokens 0 --predictions t.jsonl": "--max-new-tokens",
    "RUN --json RUN": "perce",
    "RUN --json RUN/log.jsonl/x.json": "log.jsonl",
}


@pytest.mark.parametrize("words", BAD_EVAL)
def test_a_bad_flag_of_eval_ends_in_one_line(trained, monkeypatch, words):
    monkeypatch.setattr(evaluation, "evaluate", lambda *args: pytest.fail("scored"))
    flags = words.replace("RUN", str(trained / "out/perce")).split()
    assert call(evaluation.main, *flags).is_refusal(BAD_EVAL[words])


# ------------------------------------------------------------------------------------- the machine


def test_which_errors_are_one_line():
    """Invalid input and running out of memory give a one-line error; a bug in the code does not."""

    def fail(error):
        raise error

    wrong = call(lambda: fail(UserError("two\nlines\tand \x1b[31mcolour")))
    assert wrong.err == "error: two lines and \ufffd[31mcolour\n" and wrong.status == 2
    full = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nSee the manual")
    assert call(lambda: fail(full)).is_refusal("CUDA out of memory", "batch")
    with pytest.raises(RuntimeError, match="a fault"):
        call(lambda: fail(RuntimeError("a fault of the project")))


READERS = [
    (" | cat", 2, 0, "caf\\xe9\n" * 2),
    (" | head -1", 50_000, 141, "caf\\xe9\n"),  # stops reading early
    (" | true", 50_000, 141, ""),  # never reads
]


@pytest.mark.parametrize("reader, n_lines, status, text", READERS)
def test_whatever_reads_the_output(reader, n_lines, status, text):
    """The terminal is ASCII-only, and the reader may exit early. Only a full disk is an error."""
    if "/dev/full" in reader and not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    code = "from perce_mini.runtime import cli\ndef main():\n for _ in range(N): print('caf\xe9')\n"
    code = f"{code}cli.run(main)".replace("N", str(n_lines))
    env = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUNBUFFERED": "", "CODE": code}
    line = f'{sys.executable} -c "$CODE"{reader}; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(["bash", "-c", line], cwd=ROOT, env=env, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (status, text), done.stderr
    assert done.stderr.count("\n") == (status == 2)
