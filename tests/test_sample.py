"""Writing for a user: who is written for, what is marked, and what is refused."""

import json

import pytest
import torch

from perce_mini import checkpoint, sample
from perce_mini.dataset import Row, encode_example, read_examples
from perce_mini.percontrast import token_logprobs
from tests.conftest import spy


def test_the_same_query_for_three_users_and_nobody(command, trained, world, tmp_path):
    row = next(row for row in read_examples(world / "test.jsonl") if row["profile"])
    others = [
        {},
        {},
        {"user": "z", "task": "other"},
        {"user": "v"},
        {"user": "w"},
        {"user": "x"},
        {"user": "y", "profile": []},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row | other) + "\n" for other in others))
    result = command(sample.main, trained / "out/perce", "--device", "cpu", "--data", tmp_path / "rows.jsonl")
    assert result.status == 0, result.err
    people = [line for line in result.out.splitlines() if line.startswith("for ")]
    assert people == [f"for user {row['user']}:", "for user v:", "for user w:", "for nobody:"]
    given = ["--data", tmp_path / "rows.jsonl", "--device", "cpu", "--user", 4]  # u, z, v, w
    assert "\nfor user w:\n" in (started := command(sample.main, trained / "out/perce", *given).out)
    assert started.index("for user w:") < started.index("for user v:")
    assert row["query"][:20] in result.out and max(map(len, result.out.splitlines())) <= 80


def test_a_query_is_answered_for_users_who_write_such_texts(command, trained, world, tmp_path):
    """Not for the first users of the file, who may never have written a review."""
    profile = [{"query": "q", "response": "r"}]
    rows = [{"user": f"u{i}", "task": "topic", "query": "Post about chess", "profile": profile} for i in range(3)]
    rows += [{"user": f"v{i}", "task": "review", "query": "Review a red lamp", "profile": profile} for i in range(2)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row | {"response": "r"}) + "\n" for row in rows))
    given = ["--data", tmp_path / "rows.jsonl", "--query", "Review a blue kettle", "--device", "cpu"]
    result = command(sample.main, trained / "out/perce", *given)
    people = [line for line in result.out.splitlines() if line.startswith("for ")]
    assert people == ["for user v0:", "for user v1:", "for nobody:"] and result.status == 0, result.err


def test_three_users_are_three_people():
    rows = [{"user": user, "task": "t", "query": f"of {user}", "profile": [user]} for user in "abbac"]
    assert sample.three_users(rows, 1) == ([("user b", ["b"]), ("user a", ["a"]), ("user c", ["c"])], "of b")


def test_an_answer_reads_as_many_texts_as_the_run_did(command, trained, tmp_path, monkeypatch):
    model, tokenizer, state = checkpoint.load(trained / "out/perce")
    checkpoint.save(tmp_path / "run", model, tokenizer, state["settings"] | {"top_k": 1}, 4)
    (tmp_path / "mine.txt").write_text("One text.\n\nAnother one.\n\nA third.")
    calls = spy(monkeypatch, sample, "encode_example")
    given = ["--profile", tmp_path / "mine.txt", "--query", "say", "--device", "cpu"]
    assert command(sample.main, tmp_path / "run", *given).status == 0
    assert [args[3] for args, _ in calls] == [1, 1]


def test_texts_of_ones_own_are_a_profile(command, trained, tmp_path):
    (tmp_path / "mine.txt").write_text("\ufeffOne text\nin two lines.\n\n\nAnother one.\n", encoding="utf-8")
    given = ["--profile", tmp_path / "mine.txt", "--query", "say <|end|>", "--device", "cpu"]
    result = command(sample.main, trained / "out/perce", *given)
    assert result.status == 0 and "One text in two lines." in result.out and "asked: say <|end|>" in result.out
    assert sample.read_profile(tmp_path / "mine.txt")[0] == {"query": "", "response": "One text in two lines."}
    assert sample.read_profile(tmp_path / "mine.txt")[1] == {"query": "", "response": "Another one."}


def test_temperature_and_seed_reach_the_text(command, trained, tmp_path, monkeypatch):
    monkeypatch.setattr(sample, "MAX_NEW_TOKENS", 12)
    (tmp_path / "mine.txt").write_text("One text.\n\nAnother one.")
    given = [trained / "out/perce", "--profile", tmp_path / "mine.txt", "--query", "say", "--device", "cpu"]
    flags = [[], ["--seed", 1], *(["--temperature", 1, "--seed", seed] for seed in [1, 2, 1])]
    likeliest, again, first, second, same = (command(sample.main, *given, *some).out for some in flags)
    assert likeliest == again != first != second and first == same


def test_what_is_marked_is_what_the_profile_makes_likelier(trained, world, monkeypatch):
    """PIR of the written tokens from logits of every position; the threshold is set to their median."""
    model, tokenizer, _ = checkpoint.load(trained / "out/perce")
    monkeypatch.setattr(sample, "MAX_NEW_TOKENS", 12)
    row = next(row for row in read_examples(world / "test.jsonl") if row["profile"])
    given = Row(user="", task="", query=row["query"], response="?", profile=row["profile"])
    e = encode_example(given, tokenizer, model.config.block_size, reserve=12)
    (ids,) = model.generate([e.prompt], 12, tokenizer.end)
    logp = []
    for prompt in [e.prompt, e.plain_prompt]:
        labels = torch.tensor([[-100] * (len(prompt) - 1) + ids])
        logp.append(token_logprobs(model(torch.tensor([(prompt + ids)[:-1]])), labels))
    pir = (logp[0] - logp[1]).detach()
    threshold = pir.median().item() + 1e-5  # above the token in the middle by more than rounding
    monkeypatch.setattr(sample, "CLIP_MIN", threshold)
    parts = sample.answer(model, tokenizer, row["profile"], row["query"])
    assert "".join(text for text, _ in parts) == tokenizer.decode(ids)
    expected = [sum(pir[group]).item() > threshold for _, group in sample.pieces([tokenizer.bytes_of[i] for i in ids])]
    assert [mark for _, mark in parts] == expected and 0 < sum(expected) < len(expected)


def test_marks_join_neighbours_and_cannot_be_forged():
    parts = [("My", False), (" aunt", True), (" Alma", True), (" is", False), ("\x1b[1m", False), ("!", True)]
    assert sample.marked(parts, colour=False) == "My [aunt Alma] is\ufffd[1m[!]"
    assert sample.marked(parts, colour=True) == "My \033[1;33maunt Alma\033[0m is\ufffd[1m\033[1;33m!\033[0m"


WRONG = [
    ("--user 999", "--user 999: "),
    ("--profile empty.txt --data x", "--data: not allowed with argument --profile"),
    ("--profile nowhere.txt", "nowhere.txt: No such file"),
    ("--profile empty.txt", "empty.txt: no texts in it"),
    ("--profile bad.txt", "bad.txt: not UTF-8 text"),
    ("--data nowhere", "nowhere: No such file"),
    ("--temperature -1", "--temperature: must be a number from 0"),
]


@pytest.mark.parametrize("flags, reason", WRONG)
def test_wrong_input_is_one_line(command, trained, tmp_path, monkeypatch, flags, reason):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").write_text(" \n\n ")
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe")
    result = command(sample.main, trained / "out/perce", "--device", "cpu", *flags.split())
    assert result.status == 2 and reason in result.error and "Traceback" not in result.err


def test_rows_without_a_profile_are_nobody_to_write_for(command, trained, tmp_path):
    row = {"user": "u", "task": "t", "query": "q", "response": "r", "profile": []}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    result = command(sample.main, trained / "out/perce", "--data", tmp_path / "rows.jsonl", "--device", "cpu")
    assert result.status == 2 and "has 0 users with a profile" in result.error
