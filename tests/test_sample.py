"""One query, answered for several people: who is chosen, what is marked, and which inputs fail."""

import json

import pytest
import torch

from perce_mini import sample
from perce_mini.dataset import encode_example
from perce_mini.percontrast import token_logprobs
from perce_mini.rows import Row, read_examples
from perce_mini.runtime import checkpoint
from tests.conftest import call, spy


@pytest.fixture
def run_sample(trained, tmp_path, monkeypatch):
    """Run perce_mini.sample for out/perce, with short answers, in a folder that has a mine.txt."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sample, "MAX_NEW_TOKENS", 12)
    text = "\ufeffOne text\nin two lines.\n \n\nAnother one.\n\nA third."
    (tmp_path / "mine.txt").write_text(text, encoding="utf-8")
    return lambda *words: call(sample.main, trained / "out/perce", "--device", "cpu", *words)


def test_three_users_of_one_task_and_nobody_answer_the_first_query(run_sample, world, tmp_path):
    row = next(row for row in read_examples(world / "test.jsonl") if row["profile"])
    others = [("a", {}), ("a", {}), ("b", {"task": "other"}), ("c", {"profile": []}), ("d", {})]
    others += [("e", {"query": "Post\u202e about tea"}), ("f", {})]
    rows = [row | {"user": user} | change for user, change in others]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for first_user, names in [(1, "ade"), (4, "ef")]:
        result = run_sample("--data", "rows.jsonl", "--user", first_user)
        people = [line for line in result.out.splitlines() if line.startswith(("for ", "without"))]
        assert people == [*(f"for user {name}:" for name in names), "without a profile:"]
        assert max(map(len, result.out.splitlines())) <= 80
    assert "Post\ufffd about tea" in result.out  # the query of user e


def test_train_shows_the_two_users_who_are_recognised_best(trained, monkeypatch):
    """The two users of one task whose answers contain the most words from their own profiles."""
    run, words = checkpoint.load(trained / "out/perce"), {"a": "Alma", "b": "", "c": "Alma Bob"}
    monkeypatch.setattr(sample, "CANDIDATES", 3)
    profiles = {user: [{"query": "", "response": text}] for user, text in words.items()}
    rows = [Row(user="d", task="other", query="of d", profile=profiles["b"])]
    for user, profile in profiles.items():
        rows.append(Row(user=user, task="t", query=f"of {user}", profile=profile))

    def answers(model, tokenizer, profiles, *how, **options):
        texts = [profile[0]["response"] if profile else "" for profile in profiles]
        return [[("I say ", False), (text, True)] for text in texts]

    monkeypatch.setattr(sample, "answers", answers)
    shown = spy(monkeypatch, sample, "show_answers")
    sample.show_two_users(run.model, run.tokenizer, rows, 7, 3)
    people = [("user c", profiles["c"]), ("user a", profiles["a"])]
    assert shown[0][0][2:] == (people, "of a") and shown[0][1] == {"n": 7, "top_k": 3}


def test_profile_temperature_and_seed_reach_the_text(run_sample, monkeypatch, trained):
    calls = spy(monkeypatch, sample, "encode_example")
    usual = ["--profile", "mine.txt", "--query", "say <|end|>"]
    flags = [[], ["--seed", 1], *(["--temperature", 1, "--seed", seed] for seed in [1, 2, 1])]
    greedy, greedy_too, one, two, one_too = (run_sample(*usual, *words).out for words in flags)
    assert greedy == greedy_too != one != two and one == one_too
    top_k = checkpoint.read(trained / "out/perce")["settings"].top_k
    # once with the three texts of mine.txt and once without a profile
    assert [(len(args[0]["profile"]), args[3]) for args, _ in calls[:2]] == [(3, top_k), (0, top_k)]


def test_tokens_that_the_profile_makes_likelier_are_marked(trained, world, monkeypatch):
    """Compute PIR from the logits at every position. The threshold is the median."""
    model, tokenizer, _ = checkpoint.load(trained / "out/perce")
    row = next(row for row in read_examples(world / "test.jsonl") if row["profile"])
    e = encode_example(row | {"response": "?"}, tokenizer, model.config.block_size, 4, 12)
    (ids,) = model.generate([e.prompt], 12, tokenizer.end)
    logp = []
    for prompt in [e.prompt, e.plain_prompt]:
        labels = torch.tensor([[-100] * (len(prompt) - 1) + ids])
        logp.append(token_logprobs(model(torch.tensor([(prompt + ids)[:-1]])), labels))
    pir = (logp[0] - logp[1]).detach()
    threshold = pir.median().item() + 1e-5  # further above the median than rounding errors
    monkeypatch.setattr(sample, "CLIP_MIN", threshold)
    (parts,) = sample.answers(model, tokenizer, [row["profile"]], row["query"], n=12)
    assert "".join(text for text, _ in parts) == tokenizer.decode(ids)
    groups = [group for _, group in sample.pieces([tokenizer.bytes_of[i] for i in ids])]
    expected = [sum(pir[group]).item() > threshold for group in groups]
    assert [personal for _, personal in parts] == expected and len(set(expected)) == 2


def test_marks_join_neighbours_and_cannot_be_forged():
    parts = [("My", False), (" aunt", True), (" Alma", True), (" is\x1b[1m", False), ("!", True)]
    assert sample.marked(parts, colour=False) == "My [aunt Alma] is\ufffd[1m[!]"
    coloured = "My \033[1;33maunt Alma\033[0m is\ufffd[1m\033[1;33m!\033[0m"
    assert sample.marked(parts, colour=True) == coloured


WRONG = {
    "--user 999": "--user 999",
    "--profile mine.txt": "--query",
    "--profile mine.txt --data x": "--data",
    "--profile bad.txt": "bad.txt",  # not UTF-8
    "--profile /dev/zero": "/dev/zero",
    "--data nowhere": "nowhere",
    "--data alone.jsonl": "alone.jsonl",  # no user in it has a profile
    f"--query {'long' * 5000}": "1100",
}


@pytest.mark.parametrize("words", WRONG)
def test_wrong_input_is_one_line(run_sample, tmp_path, words):
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe")
    row = {"user": "u", "task": "t", "query": "q", "response": "r", "profile": []}
    (tmp_path / "alone.jsonl").write_text(json.dumps(row))
    assert run_sample(*words.split()).is_refusal(WRONG[words])
