"""The three ways to rows: the made-up world, git histories, LongLaMP and LaMP files."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from perce_mini.dataset import read_examples
from tests.conftest import ROOT


def prepare(name, *args, status=0):
    done = subprocess.run([sys.executable, ROOT / "data" / name / "prepare.py", *map(str, args)], capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout if status == 0 else done.stderr


# ------------------------------------------------------------------------------------------- personas


def test_the_world_has_three_tasks_and_users_of_one_split_only(world):
    rows = {split: read_examples(world / f"{split}.jsonl") for split in ["train", "val", "test"]}
    for split in rows.values():
        assert {row["task"] for row in split} == {"abstract", "review", "topic"}
    assert len(rows["train"]) == 36
    users = [{row["user"] for row in split} for split in rows.values()]
    assert not users[0] & users[1] and not users[0] & users[2] and not users[1] & users[2]


def test_no_name_of_a_held_out_user_stands_in_a_text_to_train_on(world):
    code = (ROOT / "data/personas/prepare.py").read_text()
    syllables = set(re.search(r'SYLLABLES = \("(.*?)"\)', code, flags=re.S)[1].replace('"', "").split())

    def names(split):
        texts = [item[key] for row in read_examples(world / f"{split}.jsonl") for item in [row, *row["profile"]] for key in ["query", "response"]]
        words = set(re.findall("[a-z]+", " ".join(texts).lower()))
        return {word for word in words if len(word) >= 6 and {word[i : i + 3] for i in range(0, len(word), 3)} <= syllables}

    trained_on, held_out = names("base") | names("train"), names("val") | names("test")
    assert len(trained_on) > 100 and len(held_out) > 20 and not trained_on & held_out


def test_the_world_is_the_same_for_the_same_seed(world, tmp_path):
    for name, seed in [("a", 0), ("b", 1)]:
        prepare("personas", "--examples", 12, "--seed", seed, "--out", tmp_path / name)
    read = lambda folder: (folder / "test.jsonl").read_text()
    assert read(tmp_path / "a") == read(world) != read(tmp_path / "b")


def test_personal_spans_are_a_part_of_every_users_texts_and_mostly_in_the_profile(world):
    rows = read_examples(world / "train.jsonl")
    known = [row for row in rows if row["profile"]]
    assert 0 < len(rows) - len(known) < len(rows) / 2  # first texts
    letters = sum(end - start for row in rows for start, end in row["personal"])
    assert 0.1 < letters / sum(len(row["response"]) for row in rows) < 0.5

    def share_found(profile_of):
        """The share of the personal spans that turn up in a profile."""
        found = [any(row["response"][start:end] in item["response"] for item in profile_of(i)) for i, row in enumerate(known) for start, end in row["personal"]]
        return sum(found) / len(found)

    assert share_found(lambda i: known[i]["profile"]) > 0.85  # one's own
    assert share_found(lambda i: known[i - 6]["profile"]) < 0.35  # a stranger's


# --------------------------------------------------------------------------------------------- gitlog


@pytest.fixture
def repository(tmp_path):
    path = tmp_path / "repo"
    subprocess.run(["git", "init", "-q", path], check=True)

    def commit(author, message, when):
        (path / "f.txt").write_text(message)
        subprocess.run(["git", "-C", path, "add", "."], check=True)
        env = os.environ | {f"GIT_{who}_{what}": value for who in ["AUTHOR", "COMMITTER"] for what, value in
                            [("NAME", author), ("EMAIL", f"{author.replace(' ', '.')}@example.org"), ("DATE", f"{1700000000 + when} +0000")]}  # fmt: skip
        subprocess.run(["git", "-C", path, "-c", "commit.gpgsign=false", "commit", "-q", "--cleanup=verbatim", "-m", message], check=True, env=env)

    for i in range(5):
        for author in ["Ada L", "Bob", "Cy", "Di", "Ed", "Flo", "Gus", "Hal"]:
            commit(author, f"Change {i} by {author}\n\nThis is the reason number {i}.\n\nSigned-off-by: {author} <x@y>\n", i * 10)
    commit("Ada L", 'Revert "Change 1"\n\nThis reverts commit abc because of things.', 90)
    commit("dependabot[bot]", "Bump x\n\nBumps x from one to two point three.", 91)
    commit("Bob", "No body at all", 92)
    commit("Bob", "<|end|> in a subject\n\nThe body says <|persona|> and \x1f separators.", 93)
    return path


def test_commits_become_rows(repository, tmp_path):
    out = prepare("gitlog", repository, "--out", tmp_path / "rows")
    assert "1 bots" in out and "1 reverts" in out and "1 body under 5 words" in out
    files = [tmp_path / f"rows/{split}.jsonl" for split in ["train", "val", "test"]]
    rows = [row for file in files for row in read_examples(file)]
    assert len(rows) == 8 * 4  # the first of five commits is only profile
    row = next(row for row in rows if row["query"].startswith("Change 4"))
    assert row["query"].endswith("\nf.txt") and row["response"] == "This is the reason number 4."
    assert [item["response"][-2:] for item in row["profile"]] == ["0.", "1.", "2.", "3."]
    everything = "".join(file.read_text() for file in files)
    assert "example.org" not in everything and "Signed-off" not in everything
    assert {len(row["user"]) for row in rows} == {12}
    users = [{row["user"] for row in read_examples(file)} for file in files]
    assert sum(map(len, users)) == len(set.union(*users)) == 8


def test_the_key_is_private_and_makes_the_hashes(repository, tmp_path):
    for name in ["a", "b"]:
        prepare("gitlog", repository, "--out", tmp_path / name, "--temporal")
    users = [{row["user"] for row in read_examples(tmp_path / name / "train.jsonl")} for name in ["a", "b"]]
    assert not users[0] & users[1]  # another machine, another key, other hashes
    assert (tmp_path / "a/key").stat().st_mode & 0o077 == 0
    before = (tmp_path / "a/train.jsonl").read_text()
    prepare("gitlog", repository, "--out", tmp_path / "a", "--temporal")
    assert (tmp_path / "a/train.jsonl").read_text() == before


def test_a_temporal_split_holds_out_the_last_commits_of_every_author(repository, tmp_path):
    prepare("gitlog", repository, "--out", tmp_path / "rows", "--temporal", "--names")
    train, test = (read_examples(tmp_path / f"rows/{split}.jsonl") for split in ["train", "test"])
    assert {row["user"] for row in train} == {row["user"] for row in test} and "Ada L" in {row["user"] for row in train}
    assert {row["query"][:8] for row in train} == {"Change 1", "Change 2"}
    assert {row["query"][:8] for row in test} <= {"Change 4", "<|end|> "}


def test_too_few_authors_are_one_clear_line(tmp_path):
    subprocess.run(["git", "init", "-q", tmp_path / "repo"], check=True)
    who = ["-c", "user.name=a", "-c", "user.email=a@x", "-c", "commit.gpgsign=false"]
    for i in range(4):
        message = f"Change {i}\n\nThis is the reason number {i}."
        subprocess.run(["git", "-C", tmp_path / "repo", *who, "commit", "-q", "--allow-empty", "-m", message], check=True)
    assert "--temporal" in prepare("gitlog", tmp_path / "repo", "--out", tmp_path / "rows", status=2)
    prepare("gitlog", tmp_path / "repo", "--out", tmp_path / "rows", "--temporal")


def test_a_folder_that_is_no_repository_is_one_clear_line(tmp_path):
    error = prepare("gitlog", tmp_path, "--out", tmp_path / "rows", status=2)
    assert error.startswith("error: ") and "not a git repository" in error and error.count("\n") == 1


# ------------------------------------------------------------------------------------------- longlamp

OFFICIAL = {
    "abstract": {"name": "n", "input": 'Generate an abstract for the title "T" using the following items: a', "output": "o",
                 "profile": [{"id": "1", "title": "t", "abstract": "a", "year": 2001}]},
    "review": {"reviewerId": "r", "input": "Generate the review text", "output": "o",
               "profile": [{"overall": 5.0, "description": "d", "summary": "s", "reviewText": "text"},
                           {"overall": "4", "description": "d", "summary": "s", "reviewText": "text"}]},
    "topic": {"author": "a", "input": "Generate the content for a reddit post s", "output": "o",
              "profile": [{"id": "1", "author": "a", "summary": "s", "content": "c"}, {"input": "i", "output": "c2"}]},
}  # fmt: skip


@pytest.mark.parametrize("task", OFFICIAL)
@pytest.mark.parametrize("form", ["json", "jsonl"])
def test_official_rows(tmp_path, task, form):
    rows = [OFFICIAL[task], OFFICIAL[task]]
    path = tmp_path / f"test.{form}"
    path.write_text(json.dumps(rows) if form == "json" else "\n".join(map(json.dumps, rows)))
    prepare("longlamp", "--task", task, "--input", path, "--out", tmp_path / "out")
    got = read_examples(tmp_path / "out/test.jsonl")
    assert len(got) == 2 and got[0]["task"] == task and got[0]["query"] == OFFICIAL[task]["input"] and got[0]["response"] == "o"
    texts = {"abstract": ["a"], "review": ["text", "text"], "topic": ["c", "c2"]}[task]
    assert [item["response"] for item in got[0]["profile"]] == texts
    if task == "review":
        assert 'rating of "5" for' in got[0]["profile"][0]["query"] and 'rating of "4" for' in got[0]["profile"][1]["query"]


@pytest.mark.parametrize("profile, query, response", [
    ({"id": "1", "text": "article", "title": "headline"}, "Generate a headline for the following article: article", "headline"),
    ({"id": "1", "title": "title", "abstract": "abstract"}, "Generate a title for the following abstract of a paper: abstract", "title"),
    ({"id": "1", "text": "tweet"}, "", "tweet"),
])  # fmt: skip
def test_lamp_pairs(tmp_path, profile, query, response):
    (tmp_path / "dev_questions.json").write_text(json.dumps([{"id": "11", "input": "x", "profile": [profile]}]))
    golds = [{"id": "11", "output": "gold"}]
    for outputs in [golds, {"task": "LaMP_4", "golds": golds}]:
        (tmp_path / "dev_outputs.json").write_text(json.dumps(outputs))
        prepare("longlamp", "--input", tmp_path / "dev_questions.json", tmp_path / "dev_outputs.json", "--out", tmp_path / "out")
        row = read_examples(tmp_path / "out/val.jsonl")[0]
        assert row["response"] == "gold" and row["profile"] == [{"query": query, "response": response}] and row["user"] == "11"


@pytest.mark.parametrize("content, reason", [
    ('[{"name": "n"}]', "row 1: 'profile' must be a list"), ("{broken", "x.json:1: not JSON"), ("[3]", "row 1: must be an object"),
    ('[{"name": "n", "profile": [], "output": "o"}]', "row 1: no 'input'"), ("[]", "no rows left"),
    ('[{"name": "n", "input": "i", "output": "o", "profile": [{"title": "t"}]}]', "row 1, profile item 0: no 'abstract'"),
    ('[{"name": "n", "input": "i", "output": {}, "profile": []}]', "'output' must be a string"),
])  # fmt: skip
def test_bad_official_rows_are_one_clear_line(tmp_path, content, reason):
    (tmp_path / "x.json").write_text(content)
    error = prepare("longlamp", "--task", "abstract", "--input", tmp_path / "x.json", "--out", tmp_path / "out", status=2)
    assert reason in error and error.count("\n") == 1


def test_a_missing_file_and_a_missing_task_are_one_clear_line(tmp_path):
    assert "nothing.json: No such file" in prepare("longlamp", "--task", "topic", "--input", tmp_path / "nothing.json", status=2)
    (tmp_path / "x.json").write_text(json.dumps([OFFICIAL["topic"]]))
    assert "--task" in prepare("longlamp", "--input", tmp_path / "x.json", status=2)


def test_real_rows_go_through(tmp_path):
    proposals = ROOT.parent / "shared/data/proposals"
    if not proposals.exists():
        pytest.skip("the real rows are not on this machine")
    out = prepare("longlamp", "--task", "abstract", "--input", *sorted(proposals.glob("*.jsonl")), "--out", tmp_path)
    assert "313 rows" in out and "74 rows" in out and "dropped: nothing" in out
    assert len(read_examples(tmp_path / "train.jsonl")) == 313


def test_the_shipped_folders_hold_no_data():
    tracked = subprocess.run(["git", "ls-files", "data"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    assert not [path for path in tracked if Path(path).suffix == ".jsonl"]
