"""Both commands as typed, with tiny settings; and every wrong input: one line, status 2, nothing lost."""

import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tqdm import tqdm

import eval as evaluation
import train
from perce_mini import base, checkpoint, cli, trainer
from perce_mini.device import pick_device
from perce_mini.errors import UserError
from perce_mini.rouge import rouge_l
from tests.conftest import ROOT, TINY, call, spy, start_process


def base_of(trained):
    return next((trained / "out").glob("base-*"))


@pytest.fixture
def run_train(command, world, trained, tmp_path):
    """train.py from the tiny base model into tmp_path/run: two steps, no scoring."""

    def run(*args):
        given = ["--data", world, "--init", base_of(trained), "--out", tmp_path / "run", "--device", "cpu"]
        return command(train.main, *given, "--steps", 2, "--batch-size", 4, "--eval-examples", 0, *args)

    return run


# ------------------------------------------------------------------------------------------- good runs


def test_from_data_to_table(trained):
    for loss in ["ce", "perce"]:
        out = (trained / f"{loss}.txt").read_text()
        shown = ["(about 10 s)", "ROUGE-L F", "  of review", "personal tokens predicted right", "Look at the"]
        for piece in [*shown, "for user test-", "for nobody:", f"Open out/{loss}/heat.html"]:
            assert piece in out, piece
        assert max(map(len, out.splitlines())) <= 80
        for name in ["checkpoint.pt", "log.jsonl", "results.json", "predictions.jsonl", "heat.html"]:
            assert name in out and (trained / "out" / loss / name).exists()
        scores = json.loads((trained / "out" / loss / "results.json").read_text())
        assert list(scores["runs"]) == [str(next((trained / "out").glob("base-*")).relative_to(trained)), f"out/{loss}"]
    log = [json.loads(line) for line in (trained / "out/perce/log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in log] == [1, 2, 3, 4]
    assert all(entry["weight"] > 0.7999 and 0 <= entry["floor"] <= 1 for entry in log)


def test_the_second_run_used_the_base_of_the_first(trained):
    assert "train the base model" in (trained / "ce.txt").read_text()
    assert "train the base model" not in (trained / "perce.txt").read_text()


@pytest.mark.parametrize("loss", ["lossce", "entce"])
def test_every_loss_trains(run_train, loss):
    result = run_train("--loss", loss, "--grad-accum", 2)
    assert result.status == 0, result.err


def test_the_same_seed_gives_the_same_weights(run_train, tmp_path):
    weights = []
    for name, seed in [("a", 1), ("b", 1), ("c", 2)]:
        assert run_train("--out", tmp_path / name, "--seed", seed).status == 0
        weights.append(checkpoint.read(tmp_path / name)["model"]["norm.weight"])
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_epochs_and_examples_set_the_length(command, world, trained, tmp_path):
    given = ["--data", world, "--init", base_of(trained), "--out", tmp_path / "run", "--device", "cpu"]
    length = ["--epochs", 2, "--examples", 10, "--batch-size", 4, "--grad-accum", 2, "--eval-examples", 0]
    assert command(train.main, *given, *length).status == 0
    assert checkpoint.read(tmp_path / "run")["step"] == 4  # 3 micro-batches, 2 steps per epoch


def test_the_default_data_are_made_at_first(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = []
    monkeypatch.setattr(train, "DEFAULT_DATA", tmp_path / "data")

    def write(folder, files):
        made.append((folder, *files))
        raise KeyboardInterrupt

    monkeypatch.setattr(train.prepare, "write", write)
    result = command(train.main, "--data", tmp_path / "data")
    assert (
        result.status == 130
        and made == [(tmp_path / "data", "train", "val", "test")]
        and result.err.strip() == "interrupted"
    )


@pytest.mark.parametrize("loss", ["perce", "ce"])
def test_the_first_command_names_what_ce_gains(command, world, tmp_path, monkeypatch, loss):
    monkeypatch.setattr(train, "DEFAULT_DATA", world)
    monkeypatch.setattr(train, "SHIPPED_BASE", ROOT / "data/base")
    monkeypatch.setattr(train, "RECORDED", ROOT / "data/results/main.json")
    monkeypatch.setattr(train, "MAX_NEW_TOKENS", 4)
    given = ["--loss", loss, "--data", world, "--steps", 1, "--examples", 4, "--eval-examples", 1, "--device", "cpu"]
    done = command(train.main, *given, "--out", tmp_path / "run")
    assert done.status == 0, done.err
    assert (train.what_ce_gains() in " ".join(done.out.split())) == (loss == "perce")


def test_the_default_data_have_a_base_model_unless_a_flag_asks_for_another(monkeypatch):
    for flags, folder in {"": "data/base", "--steps 3": "data/base", "--base-steps 9": "out/base"}.items():
        monkeypatch.setattr(sys, "argv", ["train.py", *flags.split()])
        assert train.parse_args().start.resolve() == ROOT / folder
    for flag in ["--n-shifted 0", "--tokenizer bpe", "--vocab-size 300"]:
        monkeypatch.setattr(sys, "argv", ["train.py", *flag.split()])
        assert train.parse_args().start == Path("out/base")


def test_compare_two_runs_and_write_everything(trained, world, tmp_path, command):
    runs = [trained / "out/ce", trained / "out/perce"]
    scores, texts, page = tmp_path / "new/folder/scores.json", tmp_path / "texts.jsonl", tmp_path / "heat.html"
    given = ["--data", world, "--examples", 3, "--max-new-tokens", 8, "--samples", 2, "--device", "cpu"]
    files = ["--json", scores, "--predictions", texts, "--heatmap", page]
    result = command(evaluation.main, *runs, *given, *files)
    assert result.status == 0, result.err
    assert "ROUGE-L F" in result.out and "reference:" in result.out and "[" in result.out
    figures = json.loads(scores.read_text())
    assert set(figures["runs"]) == set(map(str, runs))
    assert set(figures["runs"][str(runs[0])]) == {"all", "abstract", "review", "topic"}
    change = figures[f"minus {runs[0]}"][str(runs[1])]["all"]["logp"]
    both = [figures["runs"][str(run)]["all"]["logp"] for run in runs]
    assert change["difference"] == pytest.approx(both[1] - both[0])
    assert change["low"] <= change["difference"] <= change["high"]
    lines = [json.loads(line) for line in texts.read_text().splitlines()]
    assert len(lines) == 6 and lines[0]["rouge_l"] == rouge_l(lines[0]["prediction"], lines[0]["reference"]).fmeasure
    assert str(runs[1]) in page.read_text()


def test_where_nothing_is_written_no_rouge_is_claimed(trained, world, tmp_path, command):
    given = ["--data", world, "--examples", 1, "--max-new-tokens", 0, "--samples", 0, "--device", "cpu"]
    result = command(evaluation.main, trained / "out/ce", *given, "--json", tmp_path / "scores.json")
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["examples"] == 1 and scores["runs"][str(trained / "out/ce")]["all"]["rouge_l"] is None
    assert result.status == 0 and "ROUGE-L" not in result.out


SCRIPTS = ["train.py", "eval.py", "data/personas/prepare.py", "data/gitlog/prepare.py", "data/longlamp/prepare.py"]


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_explains(script, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [script, "-h"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(ROOT / script, run_name="__main__")
    assert not ended.value.code and len(capsys.readouterr().out) > 400


def test_every_flag_of_train_is_explained_with_its_default(command):
    explanations = re.split(r"\n  (?=--|-h)", command(train.parse_args, "-h").out)[1:]
    assert len(explanations) > 25
    silent = ("--resume", "--overwrite", "--recompute", "--compile")
    for text in explanations[1:]:  # after -h
        assert "default" in text or "instead" in text or text.startswith(silent), text


# ------------------------------------------------------------------------------- a folder that holds a run


def interrupt_third_step(monkeypatch):
    """As Ctrl-C does, once."""
    real, calls = trainer.training_step, []

    def interrupted(*args):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(trainer, "training_step", interrupted)


def test_a_finished_run_is_not_overwritten(run_train, tmp_path):
    assert run_train().status == 0
    before = (tmp_path / "run/checkpoint.pt").read_bytes()
    result = run_train("--steps", 1)
    assert result.status == 2 and "was made with steps 2, not 1" in result.error and "--overwrite" in result.error
    again = run_train()  # the very same has nothing left to do
    assert again.status == 0 and "2 steps, of which 2 are done" in again.out
    assert (tmp_path / "run/checkpoint.pt").read_bytes() == before
    assert run_train("--steps", 1, "--overwrite").status == 0 and checkpoint.read(tmp_path / "run")["step"] == 1


@pytest.mark.parametrize("base_steps", [4, 5])  # as trained; more, which nothing needs any more
def test_the_same_finished_command_shows_its_table_again(command, trained, world, monkeypatch, base_steps):
    monkeypatch.chdir(trained)
    again = command(train.main, "--loss", "perce", "--data", world, *TINY, "--base-steps", base_steps)
    first, start = (trained / "perce.txt").read_text(), "\n3 examples"
    assert again.status == 0 and again.out[again.out.index(start) :] == first[first.index(start) :]


def test_the_model_before_reads_with_its_own_tokenizer(command, trained, world, tmp_path, monkeypatch):
    """Even where another base model took the place of the one that a run started from."""
    shutil.copytree(trained / "out/perce", tmp_path / "out/perce")
    monkeypatch.chdir(tmp_path)
    other = command(train.main, "--data", world, *TINY, "--vocab-size", 300, "--out", "out/other")
    again = command(train.main, "--data", world, *TINY)
    assert again.status == other.status == 0
    before = [dict(re.findall(r"^(\w.*?) +(-?\d\.\d+) ", done.out, flags=re.M)) for done in [other, again]]
    assert before[0] == before[1] and "log P with persona, nats/token" in before[0]


@pytest.mark.parametrize("script", [train, evaluation])
def test_what_is_asked_of_the_scoring_reaches_it(command, trained, world, tmp_path, monkeypatch, script):
    scored, encoded = (spy(monkeypatch, script, name) for name in ["evaluate", "encode_rows"])
    monkeypatch.chdir(trained)
    how = [
        "--data",
        world,
        "--temperature",
        0.7,
        "--seed",
        3,
        "--top-k",
        2,
        "--contrast",
        "stranger",
        "--device",
        "cpu",
    ]
    if script is train:
        done = command(train.main, *TINY, *how, "--steps", 1, "--out", tmp_path / "run")
    else:
        page = tmp_path / "run/heat.html"
        done = command(evaluation.main, "out/ce", "out/perce", *how, "--max-new-tokens", 5, "--heatmap", page, "--all")
    n = train.MAX_NEW_TOKENS if script is train else 5
    assert done.status == 0 and [args[3:] for args, _ in scored] == [(n, 0.7, 3)] * 2, done.err
    assert [args[3:] for args, _ in encoded[-2:]] == [(2, n, "stranger")] * 2
    assert "with a stranger's" in (tmp_path / "run/heat.html").read_text()
    assert "note: 3 of 3 rows find no stranger in their task" in done.err
    assert ("recall of PIR" in done.out) == (script is evaluation)


def test_what_is_asked_of_the_training_reaches_it(command, world, tmp_path, monkeypatch):
    asked = {"lr": 0.01, "warmup": 0.25, "batch_size": 2, "grad_accum": 3, "seed": 5, "examples": 9, "top_k": 2}
    asked |= {"steps": 2, "clip_min": 0.5, "clip_max": 2.5, "contrast": "stranger", "loss": "lossce"}
    flags = [word for name, value in asked.items() for word in ["--" + name.replace("_", "-"), value]]
    encoded, fitted = (spy(monkeypatch, train, name) for name in ["encode_rows", "fit"])
    monkeypatch.chdir(tmp_path)
    done = command(train.main, "--data", world, *TINY, *flags, "--recompute", "--save-every", 7, "--eval-examples", 0)
    assert done.status == 0, done.err
    (rows, _, _, *how), keywords = encoded[0]
    assert (len(rows), *how, keywords) == (9, 2, {"contrast": "stranger"})
    model, *_, out, save_every, _ = fitted[0][0]
    assert (model.recompute, save_every, out) == (True, 7, Path("out/lossce"))
    settings, of_base = (checkpoint.read(folder)["settings"] for folder in ["out/lossce", f"out/base-{world.name}"])
    assert (asked | {"data": str(world)}).items() <= settings.items()
    of_base_asked = {"top_k": 2, "steps": 4, "vocab_size": 400, "tokenizer": "bpe", "loss": "ce", "data": str(world)}
    assert of_base_asked.items() <= of_base.items()


def test_an_unfinished_run_waits_for_resume(run_train, tmp_path, monkeypatch):
    interrupt_third_step(monkeypatch)
    assert run_train("--steps", 4, "--save-every", 1).status == 130
    result = run_train("--steps", 4)
    assert result.status == 2 and "holds 2 of 4 steps" in result.error and "--resume goes on" in result.error
    assert run_train("--steps", 4, "--resume").status == 0 and checkpoint.read(tmp_path / "run")["step"] == 4


def test_resume_refuses_another_run_before_any_work(run_train, tmp_path, world, monkeypatch):
    assert run_train().status == 0
    monkeypatch.setattr(train, "encode_rows", lambda *args, **kwargs: pytest.fail("encoded"))
    result = run_train("--resume", "--lr", 0.5)
    assert result.status == 2 and "was made with lr 0.001, not 0.5" in result.error


def test_resume_notices_that_the_rows_changed(run_train, tmp_path, world):
    data = shutil.copytree(world, tmp_path / "data")
    assert run_train("--data", data).status == 0
    lines = (data / "train.jsonl").read_text().splitlines(keepends=True)
    (data / "train.jsonl").write_text("".join(lines[::-1]))
    result = run_train("--data", data, "--resume")
    assert result.status == 2 and "was made with data_sha256" in result.error


# ------------------------------------------------------------------------------------------ wrong input


def bad_rows(world, tmp_path, change):
    """A copy of the world in which the second training row is changed."""
    folder = shutil.copytree(world, tmp_path / "bad")
    lines = (folder / "train.jsonl").read_text().splitlines()
    lines[1] = change(json.loads(lines[1]))
    (folder / "train.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8", errors="surrogatepass")
    return folder


BAD_ROWS = [
    (lambda row: "{broken", "train.jsonl:2: not JSON"),
    (lambda row: json.dumps({k: v for k, v in row.items() if k != "response"}), "2: the row has no 'response'"),
    (lambda row: json.dumps(row | {"profile": "none"}), "train.jsonl:2: the row has no 'profile', or it is not a list"),
    (lambda row: json.dumps(row | {"response": ""}), "train.jsonl:2: 'response' is empty"),
    (lambda row: json.dumps(row | {"task": "all"}), "train.jsonl:2: a task cannot be called 'all'"),
    (lambda row: json.dumps(row | {"query": "a\0b"}), "train.jsonl:2: the row: 'query' holds a NUL"),
    (lambda row: json.dumps(row | {"query": "\ud83d"}), "train.jsonl:2: the row: 'query' holds a lone surrogate"),
    (lambda row: json.dumps(row | {"response": "word " * 2000, "personal": []}), "train.jsonl:2: query"),
]


@pytest.mark.parametrize("change, reason", BAD_ROWS)
def test_bad_rows_end_in_one_line_before_any_training(run_train, world, tmp_path, change, reason):
    result = run_train("--data", bad_rows(world, tmp_path, change))
    assert result.status == 2 and reason in result.error and not (tmp_path / "run").exists()
    assert "Traceback" not in result.err


def test_an_empty_profile_and_control_spelling_are_welcome(run_train, world, tmp_path):
    def change(row):
        return json.dumps(row | {"profile": [], "response": "<|end|> <|persona|>", "personal": []})

    result = run_train("--data", bad_rows(world, tmp_path, change))
    assert result.status == 0, result.err


BAD_FLAGS = [
    ("--loss dpo", "--loss: invalid choice: 'dpo'"),
    ("--steps 0", "--steps: must be a whole number from 1 to 1000000000, not '0'"),
    ("--steps x", "--steps: must be a whole number from 1 to 1000000000, not 'x'"),
    (f"--steps {'9' * 400}", "--steps: must be a whole number from 1 to 1000000000, not '9999"),
    ("--steps 2 --epochs 1", "argument --epochs: not allowed with argument --steps"),
    ("--epochs 1e308", "--epochs: must be a number from 1e-06 to 1000000.0"),
    ("--clip-min 6", "--clip-min 6.0 is above --clip-max 5.0"),
    ("--clip-max 1e308", "--clip-max: must be a number from"),
    ("--warmup 2", "--warmup: must be a number from 0 to 1"),
    ("--lr nan", "--lr: must be a number from 1e-30 to 1e+30, not 'nan'"),
    ("--lr -1", "--lr: must be a number from"),
    ("--seed -1", "--seed: must be a whole number from 0"),
    (f"--seed {2**70}", "--seed: must be a whole number from 0 to 4294967295"),
    ("--temperature 101", "--temperature: must be a number from 0 to 100"),
    ("--lora-rank 100000000", "--lora-rank: must be a whole number from 0 to 4096"),
    ("--n-layer 1000000000", "--n-layer: must be"),
    ("--n-embd 1000000000", "--n-embd: must be"),
    (f"--vocab-size {10**12}", "--vocab-size: must be"),
    ("--vocab-size 100", "--vocab-size: must be a whole number from 260"),
    ("--n-embd 32768 --n-layer 9", "billion parameters"),
    ("--n-shifted 7", "n_shifted 7"),
    ("--n-head 5", "n_embd 128 must be"),
    ("--device tpu9", "--device tpu9: not a device"),
    ("--device cuda:99", "--device cuda:99: not available"),
    ("--nonsense", "--nonsense"),
    ("--data nowhere", "nowhere"),
    ("--init nowhere", "nowhere"),
    ("--out config/x --data=", "--data: the path is empty"),
    ("--vocab-size 300 --tokenizer gpt2", "--vocab-size is of a learned tokenizer; gpt2 has its own"),
    ("--resume --out nowhere", "nowhere/checkpoint.pt: no checkpoint"),
    ("--resume --overwrite", "argument --overwrite: not allowed with argument --resume"),
    ("--base-steps 3", "--init names another start"),
    ("--tokenizer gpt3", "move it away"),
    ("--n-layer 3", "move it away"),
]


@pytest.mark.parametrize("flags, reason", BAD_FLAGS)
def test_bad_flags_end_in_one_line(command, world, trained, tmp_path, flags, reason):
    given = ["--data", world, "--init", base_of(trained), "--out", tmp_path / "run", "--batch-size", 4]
    result = command(train.main, *given, "--device", "cpu", "--eval-examples", 0, *flags.split())
    assert result.status == 2 and reason in result.error and not (tmp_path / "run").exists()
    assert "Traceback" not in result.err and len(result.err) < 1000


BAD_EVAL = [
    ("nowhere", "nowhere: not a folder on this machine"),
    ("RUN --data nowhere.jsonl", "nowhere.jsonl: No such file or directory"),
    ("RUN --samples -1", "--samples: must be a whole number from 0"),
    ("", "name a folder to score"),
    ("RUN --max-new-tokens 9999", "do not fit"),
    ("RUN --block-size 64", "was made with --block-size 1100, not 64"),
    ("RUN --json x --heatmap ./x", "need a file each"),
    ("RUN --json RUN", "not a file"),
    ("RUN RUN/../perce", "a folder is named twice"),
    ("RUN --template t.json", "--template is for Hugging Face folders, and there is none"),
    ("RUN --json RUN/checkpoint.pt", "checkpoint.pt is read here, so it cannot be written"),
    ("RUN --json /dev/null", "/dev/null: there is something that is not a file"),
    ("RUN --json RUN/checkpoint.pt/x.json", "checkpoint.pt"),
]


@pytest.mark.parametrize("flags, reason", BAD_EVAL)
def test_eval_with_bad_input_ends_in_one_line_before_the_work(command, trained, monkeypatch, flags, reason):
    monkeypatch.setattr(evaluation, "evaluate", lambda *args, **kwargs: pytest.fail("scored"))
    args = flags.replace("RUN", str(trained / "out/perce")).split()
    result = command(evaluation.main, *args, "--device", "cpu")
    assert result.status == 2 and reason in result.error and "Traceback" not in result.err


def test_a_nan_loss_stops_the_run_and_keeps_what_was_saved(run_train, tmp_path, monkeypatch):
    real, calls = trainer.backward, []

    def poisoned(*args):
        calls.append(1)
        return real(*args) * (float("nan") if len(calls) > 2 else 1)

    monkeypatch.setattr(trainer, "backward", poisoned)
    result = run_train("--steps", 6, "--save-every", 1)
    assert result.status == 2 and "nan" in result.error and "lower --lr" in result.error and "step 2" in result.error
    state = checkpoint.read(tmp_path / "run")
    assert state["step"] == 2 and all(torch.isfinite(w).all() for w in state["model"].values())


def test_no_space_left_keeps_the_last_checkpoint(run_train, tmp_path, monkeypatch):
    real = torch.save

    def full(state, path):
        if state["step"] > 1:
            raise RuntimeError("[enforce fail at inline_container.cc] . failed writing file\nframe #0: long trace")
        real(state, path)

    monkeypatch.setattr(torch, "save", full)
    result = run_train("--save-every", 1)
    assert result.status == 2 and "cannot write" in result.error and "checkpoint.pt" in result.error
    assert "run keeps step 1, --resume goes on from there" in result.error
    assert checkpoint.read(tmp_path / "run")["step"] == 1


def train_until_interrupted(flags):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # else ignored in the background
    return call(train.main, *flags)


def test_ctrl_c_keeps_the_last_checkpoint(world, trained, tmp_path):
    given = ["--data", world, "--init", base_of(trained), "--out", tmp_path / "run", "--steps", 9999, "--save-every", 2]
    process = start_process(train_until_interrupted, [*given, "--batch-size", 4, "--device", "cpu"])
    while not (tmp_path / "run/log.jsonl").exists():
        assert process.is_alive(), process.result().err
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGINT)
    result = process.result()
    assert result.status == 130 and "--resume goes on from there" in result.err and "Traceback" not in result.err
    assert checkpoint.read(tmp_path / "run")["step"] > 0


def test_an_interrupted_base_goes_on(command, world, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    args = ["--data", world, *TINY, "--save-every", 1, "--eval-examples", 0]
    interrupt_third_step(monkeypatch)
    result = command(train.main, *args)
    assert result.status == 130 and "keeps step 2, the same command goes on" in result.err
    assert command(train.main, *args).status == 0
    log = (tmp_path / "out" / f"base-{world.name}" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in log] == [1, 2, 3, 4]
    assert os.listdir(tmp_path / "out/perce")


def test_a_base_model_that_is_begun_keeps_its_shape(command, world, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    args = ["--data", world, *TINY, "--save-every", 1, "--eval-examples", 0]
    interrupt_third_step(monkeypatch)
    command(train.main, *args)
    result = command(train.main, *args, "--n-layer", 2)
    assert result.status == 2 and "exists with n_layer 1, not 2" in result.error
    assert checkpoint.read(tmp_path / f"out/base-{world.name}")["step"] == 2


def test_a_base_model_that_cannot_be_written_is_said_before_it_is_trained(command, world, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(base, "fit", lambda *args: pytest.fail("trained"))
    (tmp_path / "out").touch()
    result = command(train.main, "--data", world, *TINY, "--out", tmp_path / "run")
    assert result.status == 2 and "out/base-" in result.error


def test_a_finished_run_is_the_same_from_elsewhere_and_keeps_its_results(run_train, world, tmp_path):
    assert run_train("--eval-examples", 3).status == 0
    state = torch.load(tmp_path / "run/checkpoint.pt", weights_only=True)
    del state["settings"]["template"]  # of before there was such a setting
    torch.save(state, tmp_path / "run/checkpoint.pt")
    again = run_train("--data", shutil.copytree(world, tmp_path / "copy"))
    assert again.status == 0 and "2 steps, of which 2 are done" in again.out, again.err
    assert (tmp_path / "run/results.json").exists()


def test_what_a_run_is_compared_with_is_looked_for_before_it_goes_on(run_train, trained, tmp_path, monkeypatch):
    moved = shutil.copytree(base_of(trained), tmp_path / "base")
    assert run_train("--init", moved).status == 0
    shutil.rmtree(moved)
    monkeypatch.setattr(train, "fit", lambda *args: pytest.fail("trained"))
    result = run_train("--init", moved, "--eval-examples", 3)
    assert result.status == 2 and "base, with which the run is compared, is not there" in result.error


def test_rows_that_do_not_fit_are_refused_before_the_base_model_is_trained(command, world, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = shutil.copytree(world, tmp_path / "data")
    row = json.loads((data / "test.jsonl").read_text().splitlines()[0])
    row |= {"query": "long " * 950, "response": "ok", "personal": []}
    (data / "test.jsonl").write_text(json.dumps(row) + "\n")
    result = command(train.main, "--data", data, *TINY)
    assert result.status == 2 and "room for an answer (160) do not fit" in result.error
    assert not (tmp_path / "out/base-data/checkpoint.pt").exists()


def test_an_overwritten_run_leaves_no_results(run_train, tmp_path, monkeypatch):
    assert run_train("--eval-examples", 3).status == 0 and (tmp_path / "run/results.json").exists()
    assert run_train("--steps", 1, "--overwrite").status == 0
    assert sorted(os.listdir(tmp_path / "run")) == ["checkpoint.pt", "log.jsonl"]
    assert run_train("--steps", 1, "--eval-examples", 3).status == 0 and (tmp_path / "run/results.json").exists()
    interrupt_third_step(monkeypatch)  # also where the new run does not come to its end
    assert run_train("--steps", 4, "--overwrite", "--save-every", 1).status == 130
    assert sorted(os.listdir(tmp_path / "run")) == ["checkpoint.pt", "log.jsonl"]


def test_shown_answers_read_as_many_texts_as_the_run(run_train, monkeypatch):
    calls = spy(monkeypatch, train, "show_answers")
    assert run_train("--eval-examples", 3, "--top-k", 1).status == 0
    assert [keywords for _, keywords in calls] == [{"top_k": 1}]


def test_a_report_that_cannot_be_written_is_said_before_the_training(run_train, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "fit", lambda *args: pytest.fail("trained"))
    (tmp_path / "run/heat.html").mkdir(parents=True)
    result = run_train()
    assert result.status == 2 and "heat.html: there is something that is not a file" in result.error


def test_a_base_model_of_other_data_or_steps_is_not_used_unseen(command, trained, world, tmp_path, monkeypatch):
    monkeypatch.chdir(trained)
    other = shutil.copytree(world, tmp_path / world.name)
    lines = (other / "base.jsonl").read_text().splitlines(keepends=True)
    (other / "base.jsonl").write_text("".join(lines[::-1]))
    again = ["--out", tmp_path / "run", "--eval-examples", 0]
    result = command(train.main, "--data", other, *TINY, *again)
    assert result.status == 2 and f"trained on other data than {other}/base.jsonl: move it away" in result.error
    result = command(train.main, "--data", world, *TINY, *again, "--base-steps", 3)
    assert result.status == 2 and "exists with base_steps 4, not 3: drop the flag or move it away" in result.error
    assert not (tmp_path / "run").exists()


def test_a_run_is_not_written_where_it_cannot_be(command, run_train, trained, tmp_path):
    start = base_of(trained)
    before = (start / "checkpoint.pt").read_bytes()
    result = run_train("--out", start.parent / ".." / start.parent.name / start.name, "--overwrite")
    assert result.status == 2 and "is what the run starts from" in result.error
    assert (start / "checkpoint.pt").read_bytes() == before
    (tmp_path / "file").touch()
    for out in [tmp_path / "file", tmp_path / "file/run"]:
        assert f"{tmp_path / 'file'} is no folder to write to" in run_train("--out", out).error
    (tmp_path / "loop").symlink_to("loop")
    result = run_train("--out", tmp_path / "loop")
    assert result.status == 2 and "loop" in result.error and "Traceback" not in result.err
    result = command(train.main, "--template", "t.json", "--out", tmp_path / "run")
    assert result.status == 2 and "--template is for a Hugging Face folder" in result.error


def test_epochs_without_end_are_refused(monkeypatch, world):
    monkeypatch.setattr(sys, "argv", ["train.py", "--data", str(world), "--epochs", "1e6"])
    with pytest.raises(UserError, match="--epochs 1e.06 are 62500000000 optimisation steps"):
        train.make_settings(train.parse_args(), {}, 10**6)


def test_the_default_data_are_so_however_they_are_spelled(monkeypatch):
    for spelled in [train.DEFAULT_DATA, train.DEFAULT_DATA.resolve()]:
        monkeypatch.setattr(sys, "argv", ["train.py", "--data", str(spelled)])
        args = train.parse_args()
        assert args.data == train.DEFAULT_DATA and args.start == train.SHIPPED_BASE


def test_the_plan_is_that_of_the_model_as_it_is_trained(command, trained, world, tmp_path, monkeypatch):
    planned = []

    def plan(tasks, model, device):
        planned.append((model.recompute, model.embedding.weight.requires_grad))

    monkeypatch.setattr(train, "print_plan", plan)
    flags = ["--init", base_of(trained), "--data", world, "--lora-rank", 2, "--recompute", "--eval-examples", 0]
    done = command(train.main, *flags, "--steps", 1, "--batch-size", 2, "--device", "cpu", "--out", tmp_path / "run")
    assert done.status == 0 and planned == [(True, False)], done.err


def test_runs_of_before_a_setting_are_compared(command, trained, world, tmp_path, monkeypatch):
    state = torch.load(trained / "out/ce/checkpoint.pt", weights_only=True)
    del state["settings"]["lora_rank"]
    state["settings"] |= {"warmup": 0.5, "top_k": 3}
    (tmp_path / "old").mkdir()
    torch.save(state, tmp_path / "old/checkpoint.pt")
    runs, encoded = [tmp_path / "old", trained / "out/perce"], spy(monkeypatch, evaluation, "encode_rows")
    done = command(evaluation.main, *runs, "--data", world, "--max-new-tokens", 0, "--device", "cpu")
    assert done.status == 0 and all(args[3] == 3 for args, _ in encoded)  # as the first was trained
    assert re.findall("the runs differ in (\\w+)", done.out) == ["warmup", "top_k"]


# ------------------------------------------------------------------------------------------ the machine


def test_one_line_tells_which_device_is_missing():
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(UserError, match="not available on this machine"):
        pick_device("cuda")


def test_a_full_device_is_one_clear_line(command):
    def full():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 is small.\nSee the manual")

    result = command(full)
    assert result.status == 2 and result.err.count("\n") == 1
    assert "CUDA out of memory: lower --batch-size" in result.error

    def fault():
        raise RuntimeError("a fault of the project")

    with pytest.raises(RuntimeError, match="a fault"):
        command(fault)


@pytest.mark.parametrize(
    "reader, n_lines, read",
    [(" >&-", 2, ""), (" | tail -1", 2, "caf\\xe9\n"), (" | head -1", 50_000, "caf\\xe9\n"), (" | true", 2, "")],
)
def test_whatever_reads_the_output(reader, n_lines, read):
    """A closed stdout, ASCII only, a reader that has seen enough, one that has gone: nothing on stderr."""
    code = f"from perce_mini import cli; cli.run(lambda: [print('caf\\xe9') for _ in range({n_lines})])"
    env = os.environ | {"PYTHONIOENCODING": "ascii", "CODE": code}
    command = ["bash", "-c", f'{sys.executable} -c "$CODE"{reader}']
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, read, "")


def test_a_closed_stderr_changes_nothing(monkeypatch):
    done = []
    monkeypatch.setattr(sys, "stderr", None)
    cli.run(lambda: done.extend(tqdm([1, 2])))
    assert done == [1, 2]


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_ends_as_cli_says(monkeypatch, script):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.Parser, "parse_args", interrupted)
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / script), run_name="__main__")
    assert end.value.code == 130


def test_an_error_is_one_line_whatever_it_says(command):
    def wrong():
        raise UserError("two\nlines\tand a tab")

    result = command(wrong)
    assert result.status == 2 and result.err == "error: two lines and a tab\n"


def test_numbers_are_checked_when_they_are_read(command):
    parser = cli.Parser()
    parser.add_argument("--x", type=cli.number(float, low=-1, high=2))
    assert parser.parse_args(["--x", "-1"]).x == -1 and parser.parse_args(["--x", "2"]).x == 2
    for text in ["-1.01", "2.01", "inf", "nan", "one"]:
        assert command(lambda text=text: parser.parse_args(["--x", text])).status == 2
