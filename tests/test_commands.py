"""Both commands as typed, with tiny settings; and every wrong input: one line, status 2, nothing lost."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch

import eval as evaluation
import train
from perce_mini import checkpoint, cli, trainer
from perce_mini.dataset import collate, encode_example, read_examples
from perce_mini.percontrast import perce_loss, token_logprobs
from tests.conftest import ROOT, TINY


def base_of(trained):
    return next((trained / "out").glob("base-*"))


def run_train(command, world, trained, tmp_path, *args):
    return command(train.main, "--data", world, "--init", base_of(trained), "--out", tmp_path / "run", "--device", "cpu",
                   "--steps", 2, "--batch-size", 4, "--eval-examples", 0, *args)  # fmt: skip


# ------------------------------------------------------------------------------------------- good runs


def test_from_data_to_table(trained):
    for loss in ["ce", "perce"]:
        out = (trained / f"{loss}.txt").read_text()
        for piece in ["(about 10 s)", "ROUGE-L F", "log-likelihood with persona", "personal tokens predicted right", "PerContrast F1", "reference:"]:
            assert piece in out, piece
        for name in ["checkpoint.pt", "tokenizer.json", "log.jsonl", "results.json", "predictions.jsonl"]:
            assert f"out/{loss}/{name}" in out and (trained / "out" / loss / name).exists()
    log = [json.loads(line) for line in (trained / "out/perce/log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in log] == [1, 2, 3, 4]
    assert all(entry["weight"] > 0.7999 and 0 <= entry["floor"] <= 1 for entry in log)


def test_the_second_run_used_the_base_of_the_first(trained):
    assert "train the base model" in (trained / "ce.txt").read_text()
    assert "train the base model" not in (trained / "perce.txt").read_text()


@pytest.mark.parametrize("loss", ["lossce", "entce"])
def test_every_loss_trains(command, world, trained, tmp_path, loss):
    result = run_train(command, world, trained, tmp_path, "--loss", loss, "--grad-accum", 2)
    assert result.status == 0, result.err


def test_the_same_seed_gives_the_same_weights(command, world, trained, tmp_path):
    weights = []
    for name, seed in [("a", 1), ("b", 1), ("c", 2)]:
        assert run_train(command, world, trained, tmp_path, "--out", tmp_path / name, "--seed", seed).status == 0
        weights.append(checkpoint.read(tmp_path / name)["model"]["norm.weight"])
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_epochs_and_examples_set_the_length(command, world, trained, tmp_path):
    done = command(train.main, "--data", world, "--init", base_of(trained), "--out", tmp_path / "run", "--device", "cpu", "--epochs", 2,
                   "--examples", 10, "--batch-size", 4, "--grad-accum", 2, "--eval-examples", 0)  # fmt: skip
    assert done.status == 0, done.err
    assert checkpoint.read(tmp_path / "run")["step"] == 4  # 3 micro-batches, 2 steps an epoch


def test_a_step_is_the_step_of_perce_loss_on_full_logits(world, trained):
    """trainer.backward (states, projection where a response is predicted) against logits of every position, on the same examples."""
    model, tokenizer, _ = checkpoint.load(base_of(trained))
    examples = [encode_example(row, tokenizer, 1100) for row in read_examples(world / "train.jsonl")[:6]]
    settings = {"loss": "perce", "clip_min": -0.01, "clip_max": 0.01}  # a narrow clip: PIR is small after 4 steps
    trainer.backward(model, [collate(examples[:2]), collate(examples[2:])], settings, torch.device("cpu"), sum(len(e.response) for e in examples))
    fast = torch.cat([p.grad.flatten() for p in model.parameters()])

    model.zero_grad()
    logp = {"persona": [], "plain": []}
    for e in examples:
        for view, prompt in [("persona", e.persona + e.query), ("plain", e.query)]:
            labels = [-100] * (len(prompt) - 1) + e.response
            logp[view].append(token_logprobs(model(torch.tensor([(prompt + e.response)[:-1]])), torch.tensor([labels])))
    persona, plain = torch.cat(logp["persona"]), torch.cat(logp["plain"])
    weights = (persona - plain).clamp(-0.01, 0.01)
    assert weights.min() < 0.009 and weights.std() > 1e-3  # not all at one bound
    perce_loss(persona, plain.detach(), -0.01, 0.01).backward()
    slow = torch.cat([p.grad.flatten() for p in model.parameters()])
    assert torch.allclose(fast, slow, atol=1e-7, rtol=1e-3)


@pytest.mark.parametrize("loss", ["ce", "entce", "perce"])
def test_bfloat16_reaches_every_weight(world, trained, monkeypatch, loss):
    """Also where the plain view has used them without gradient just before (autocast keeps what it has cast)."""
    model, tokenizer, _ = checkpoint.load(base_of(trained))
    examples = [encode_example(row, tokenizer, 1100) for row in read_examples(world / "train.jsonl")[1:5]]
    gradients = []
    for enabled in [False, True]:
        monkeypatch.setattr(cli, "autocast", lambda device: torch.autocast("cpu", torch.bfloat16, enabled=enabled))
        model.zero_grad()
        trainer.backward(model, [collate(examples)], {"loss": loss, "clip_min": 0.8, "clip_max": 5.0}, torch.device("cpu"), sum(len(e.response) for e in examples))
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    for name, exact in gradients[0].items():
        assert gradients[1][name] is not None, name
        assert (gradients[1][name] - exact).norm() < 0.1 * exact.norm(), name


@pytest.mark.parametrize("script", ["train.py", "eval.py", "data/personas/prepare.py", "data/gitlog/prepare.py", "data/longlamp/prepare.py"])
def test_help_explains(script):
    done = subprocess.run([sys.executable, ROOT / script, "-h"], capture_output=True, text=True)
    assert done.returncode == 0 and len(done.stdout) > 400


def test_every_flag_of_train_is_explained_with_its_default(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", "-h"])
    with pytest.raises(SystemExit):
        train.parse_args()
    explanations = re.split(r"\n  (?=--|-h)", capsys.readouterr().out)[1:]
    assert len(explanations) > 25
    for text in explanations[1:]:  # after -h
        assert "default" in text or "instead" in text or text.startswith(("--resume", "--recompute", "--compile")), text


# ------------------------------------------------------------------------------------------ wrong input


def bad_rows(world, tmp_path, change):
    """A copy of the world in which the second training row is changed."""
    shutil.copytree(world, tmp_path / "bad")
    path = tmp_path / "bad/train.jsonl"
    lines = path.read_text().splitlines()
    lines[1] = change(json.loads(lines[1]))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", errors="surrogatepass")
    return tmp_path / "bad"


@pytest.mark.parametrize("change, reason", [
    (lambda row: "{broken", "train.jsonl:2: not JSON"),
    (lambda row: json.dumps({k: v for k, v in row.items() if k != "response"}), "train.jsonl:2: the row has no 'response'"),
    (lambda row: json.dumps(row | {"profile": "none"}), "train.jsonl:2: 'profile' must be a list"),
    (lambda row: json.dumps(row | {"response": ""}), "train.jsonl:2: 'response' is empty"),
    (lambda row: json.dumps(row | {"query": "a\0b"}), "train.jsonl:2: 'query' holds a NUL"),
    (lambda row: json.dumps(row | {"query": "\ud83d"}), "train.jsonl:2: 'query' holds a lone surrogate"),
    (lambda row: json.dumps(row | {"response": "word " * 2000, "personal": []}), "train.jsonl:2: query"),
])  # fmt: skip
def test_bad_rows_end_in_one_line_before_any_training(command, world, trained, tmp_path, change, reason):
    result = run_train(command, bad_rows(world, tmp_path, change), trained, tmp_path)
    assert result.status == 2 and reason in result.error and not (tmp_path / "run").exists()
    assert "Traceback" not in result.err


@pytest.mark.parametrize("args, reason", [
    (["--loss", "dpo"], "--loss: invalid choice: 'dpo'"), (["--steps", "0"], "--steps must be above 0"), (["--steps", "x"], "invalid int"),
    (["--clip-min", "6"], "--clip-min 6.0 is above --clip-max 5.0"), (["--steps", "2", "--epochs", "1"], "exclude each other"),
    (["--warmup", "2"], "--warmup"), (["--device", "tpu9"], "--device tpu9"), (["--lr", "nan"], "--lr"), (["--nonsense"], "--nonsense"),
    (["--vocab-size", "100"], "--vocab-size must be at least"), (["--data", "nowhere"], "nowhere"), (["--init", "nowhere"], "nowhere/checkpoint.pt: no checkpoint"),
    (["--resume", "--out", "nowhere"], "nowhere/checkpoint.pt: no checkpoint"), (["--tokenizer", "gpt3"], "move it away"), (["--n-layer", "3"], "move it away"),
    (["--n-shifted", "7"], "n_shifted 7"), (["--n-head", "5"], "n_embd 128 must be"),
])  # fmt: skip
def test_bad_flags_end_in_one_line(command, world, trained, tmp_path, args, reason):
    result = command(train.main, "--data", world, "--init", base_of(trained), "--out", tmp_path / "run", "--device", "cpu",
                     "--batch-size", 4, "--eval-examples", 0, *args)  # fmt: skip
    assert result.status == 2 and reason in result.error and not (tmp_path / "run").exists()
    assert "Traceback" not in result.err


def test_an_empty_profile_and_control_spelling_are_welcome(command, world, trained, tmp_path):
    change = lambda row: json.dumps(row | {"profile": [], "response": "<|end|> <|persona|>", "personal": []})
    result = run_train(command, bad_rows(world, tmp_path, change), trained, tmp_path)
    assert result.status == 0, result.err


def test_a_nan_loss_stops_the_run_and_keeps_what_was_saved(command, world, trained, tmp_path, monkeypatch):
    real, calls = trainer.weighted_nll, []

    def poisoned(logp, weights, n_tokens):
        calls.append(1)
        return real(logp, weights, n_tokens) * (float("nan") if len(calls) > 2 else 1)

    monkeypatch.setattr(trainer, "weighted_nll", poisoned)
    result = run_train(command, world, trained, tmp_path, "--steps", 6, "--save-every", 1)
    assert result.status == 2 and "nan" in result.error and "lower --lr" in result.error and "step 2" in result.error
    state = checkpoint.read(tmp_path / "run")
    assert state["step"] == 2 and all(torch.isfinite(w).all() for w in state["model"].values())


def test_resume_refuses_another_run(command, world, trained, tmp_path):
    assert run_train(command, world, trained, tmp_path).status == 0
    result = run_train(command, world, trained, tmp_path, "--resume", "--lr", 0.5)
    assert result.status == 2 and "was made with lr 0.004, not 0.5" in result.error


def test_no_space_left_keeps_the_last_checkpoint(command, world, trained, tmp_path, monkeypatch):
    real = torch.save

    def full(state, path):
        if state["step"] > 1:
            raise RuntimeError("[enforce fail at inline_container.cc] . PytorchStreamWriter failed writing file\nframe #0: long trace")
        real(state, path)

    monkeypatch.setattr(torch, "save", full)
    result = run_train(command, world, trained, tmp_path, "--save-every", 1)
    assert result.status == 2 and "cannot write" in result.error and "checkpoint.pt" in result.error
    assert checkpoint.read(tmp_path / "run")["step"] == 1


def test_ctrl_c_keeps_the_last_checkpoint(world, trained, tmp_path):
    process = subprocess.Popen([sys.executable, ROOT / "train.py", "--data", world, "--init", base_of(trained), "--out", tmp_path / "run", "--steps", "9999",
                                "--save-every", "2", "--batch-size", "4", "--device", "cpu"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip
    while not (tmp_path / "run/log.jsonl").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "--resume goes on from there" in err and "Traceback" not in err
    assert checkpoint.read(tmp_path / "run")["step"] > 0


@pytest.mark.parametrize("args, reason", [
    (["nowhere"], "nowhere/checkpoint.pt: no checkpoint"), (["RUN", "--data", "nowhere.jsonl"], "nowhere.jsonl: No such file"),
    (["RUN", "--samples", "-1"], "--samples must not be below 0"), ([], "name a folder to score"), (["RUN", "--max-new-tokens", "9999"], "do not fit"),
])  # fmt: skip
def test_eval_with_bad_input_ends_in_one_line(command, world, trained, args, reason):
    args = [trained / "out/perce" if a == "RUN" else a for a in args]
    result = command(evaluation.main, *args, "--device", "cpu")
    assert result.status == 2 and reason in result.error and "Traceback" not in result.err


def test_an_interrupted_base_goes_on(command, world, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    args = ["--data", world, *TINY, "--save-every", 1, "--eval-examples", 0]
    real, steps = trainer.backward, []

    def interrupted(*a):
        steps.append(1)
        if len(steps) == 3:
            raise KeyboardInterrupt
        return real(*a)

    monkeypatch.setattr(trainer, "backward", interrupted)
    result = command(train.main, *args)
    assert result.status == 130 and "keeps step 2" in result.err
    result = command(train.main, *args)
    assert result.status == 0, result.err
    base = tmp_path / "out" / f"base-{world.name}"
    assert [json.loads(line)["step"] for line in (base / "log.jsonl").read_text().splitlines()] == [1, 2, 3, 4]
    assert os.listdir(tmp_path / "out" / "perce")


def test_one_line_tells_which_device_is_missing():
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(cli.RunError, match="not available on this machine"):
        cli.pick_device("cuda")


def test_a_full_device_is_one_clear_line(command):
    def full():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8.00 GiB.\nSee the manual")

    result = command(full)
    assert result.status == 2 and result.err.count("\n") == 1 and "CUDA out of memory: lower --batch-size" in result.error
