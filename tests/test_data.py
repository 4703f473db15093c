"""The three ways to rows: the made-up world, git histories, LongLaMP and LaMP files."""

import hashlib
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from data.gitlog import prepare as gitlog
from data.longlamp import prepare as longlamp
from data.personas import exact, general, words
from data.personas import prepare as personas
from data.splits import write_splits
from perce_mini.dataset import read_examples
from perce_mini.errors import UserError
from tests.conftest import ROOT

SPLITS = ["train", "val", "test"]
SMALL = "--train 1 --held-out 1 --base 48".split()


@pytest.fixture
def prepare(command):
    """prepare(script, *args): run it; returns what it printed, or with status=2 the one line of the error."""

    def run(script, *args, status=0):
        done = command(script.main, *args)
        assert done.status == status, done.err
        assert done.err.count("\n") == (1 if status else 0), done.err
        return done.err if status else done.out

    return run


def rows_in(folder):
    """{split: rows} of the splits that have a file."""
    paths = {split: folder / f"{split}.jsonl" for split in SPLITS}
    return {split: read_examples(path) for split, path in paths.items() if path.exists()}


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def fill_the_disk(folder, *names):
    """Make every write to these new files fail as on a full disk."""
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    for name in names:
        (folder / f"{name}.new").symlink_to("/dev/full")


# ------------------------------------------------------------------------------------- all the scripts


def test_they_run_from_any_folder(tmp_path):
    calls = {
        "personas/prepare.py --train 1 --held-out 1 --base 4 --out p": (0, "wrote p/test.jsonl"),
        "gitlog/prepare.py nothing --out r": (2, "cannot change to 'nothing'"),
        "longlamp/prepare.py --task topic --input nothing.json --out l": (2, "nothing.json: No such file"),
        "longlamp/prepare.py --task topic --input \udcff.json --out l": (2, "\ufffd.json: No such file"),
    }
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    running = []
    for call in calls:
        script, *args = call.split()
        command = [sys.executable, ROOT / "data" / script, *args]
        running.append(subprocess.Popen(command, cwd=tmp_path, env=clean, **pipes))
    for process, (status, says) in zip(running, calls.values()):
        out, _ = process.communicate()
        assert process.returncode == status and says in out and "Traceback" not in out, out


@pytest.mark.parametrize("flags", ["--max-rows 0", "--max-rows -5", "--profile -1", "--max-chars 0", "--max-chars x"])
def test_numbers_without_a_meaning_are_refused_for_commits(prepare, flags):
    assert f"argument {flags.split()[0]}: " in prepare(gitlog, ".", *flags.split(), status=2)


@pytest.mark.parametrize("flags", ["--max-chars 0", "--max-chars -1", "--task poem"])
def test_numbers_without_a_meaning_are_refused_for_official_rows(prepare, flags):
    assert f"argument {flags.split()[0]}: " in prepare(longlamp, "--input", "x", *flags.split(), status=2)


@pytest.mark.parametrize(
    "flags",
    [
        "--train 0",
        "--held-out 0",
        "--base 0",
        "--same-author 1.5",
        "--lists -1",
        "--lists nan",
        "--seed -1",
        "--ordinary -1",
    ],
)
def test_numbers_without_a_meaning_are_refused_for_the_made_up_world(prepare, tmp_path, flags):
    assert f"argument {flags.split()[0]}: " in prepare(personas, "--out", tmp_path, *flags.split(), status=2)
    assert not list(tmp_path.iterdir())


def test_a_file_in_the_place_of_the_folder_is_said_before_the_work(prepare, tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    official = ["--task", "topic", "--input", "nothing.json"]
    for script, args in [(personas, []), (gitlog, ["nothing", "--names"]), (longlamp, official)]:
        assert str(file) in prepare(script, *args, "--out", file, status=2)
    assert file.read_text() == "mine"


def test_a_folder_whose_name_is_not_utf8_is_written_to(prepare, tmp_path):
    strange = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe"))
    assert "wrote" in prepare(personas, *SMALL, "--out", strange)
    assert len(read_examples(strange / "train.jsonl")) == 3
    assert "cannot change to" in prepare(gitlog, strange / "nothing", "--out", strange, status=2)


# ---------------------------------------------------------------------------------- splits in one piece

ROW = {"user": "u", "task": "t", "query": "", "response": "r", "profile": []}


def test_splits_are_replaced_and_one_without_rows_goes(tmp_path, capsys):
    write_splits(tmp_path, {split: [ROW] for split in SPLITS}, {})
    assert capsys.readouterr().out.endswith("dropped: nothing\n")
    new = {"train": [ROW, ROW | {"user": "v"}, ROW], "val": [], "test": [ROW]}
    write_splits(tmp_path, new, {"bad": 2, "good": 0, "long": 1})
    assert capsys.readouterr().out.splitlines() == [
        f"wrote {tmp_path}/train.jsonl: 3 rows of 2 users",
        f"removed {tmp_path}/val.jsonl: there are no rows for it now",
        f"wrote {tmp_path}/test.jsonl: 1 rows of 1 users",
        "dropped: 2 bad, 1 long",
    ]
    assert rows_in(tmp_path) == {"train": new["train"], "test": new["test"]}
    assert sorted(contents(tmp_path)) == ["test.jsonl", "train.jsonl"]


@pytest.mark.parametrize("full", SPLITS[:2])
def test_a_full_disk_leaves_every_old_split_whole(tmp_path, full):
    write_splits(tmp_path, {split: [ROW] for split in SPLITS}, {})
    before = contents(tmp_path)
    fill_the_disk(tmp_path, f"{full}.jsonl")
    with pytest.raises(OSError, match="No space left"):
        write_splits(tmp_path, {"train": [ROW, ROW], "val": [ROW, ROW], "test": []}, {})
    assert contents(tmp_path) == before


# ------------------------------------------------------------------------------------------- personas


def test_the_world_has_three_tasks_and_users_of_one_split_only(world):
    rows = rows_in(world)
    for split in rows.values():
        assert {row["task"] for row in split} == {"abstract", "review", "topic"}
    assert len(rows["train"]) == 36
    users = [{row["user"] for row in split} for split in rows.values()]
    assert not users[0] & users[1] and not users[0] & users[2] and not users[1] & users[2]


def test_no_name_of_a_held_out_user_stands_in_a_text_to_train_on(world):
    def names(split):
        texts = [item for row in read_examples(world / f"{split}.jsonl") for item in [row, *row["profile"]]]
        words = re.findall("[a-z]{6,}", " ".join(f"{item['query']} {item['response']}" for item in texts).lower())
        syllables = set(personas.SYLLABLES)
        return {word for word in words if {word[i : i + 3] for i in range(0, len(word), 3)} <= syllables}

    trained_on, held_out = names("base") | names("train"), names("val") | names("test")
    assert len(trained_on) > 100 and len(held_out) > 20 and not trained_on & held_out


def make_world(folder, **how):
    """As small as the fixture `world`."""
    personas.write(folder, personas.splits(**{"train": 12, "held_out": 1, "base": 48, "ordinary": 0} | how))


def test_base_texts_have_from_none_to_half_as_many_ordinary_sentences_again():
    rows = [row for row in personas.base_rows(300, 0.5, 0.2, personas.Rng(0)) if row["task"] != "list"]
    found = [[exact.n_ordinary(row["task"], text["response"]) for text in [row, *row["profile"]]] for row in rows]
    assert {n for numbers in found for n in numbers} == set(range(7))
    behind = [numbers for numbers in found if len(numbers) == 5]
    assert 0.4 < sum(len(set(numbers)) == 1 for numbers in behind) / len(behind) < 0.6  # an author keeps to a number


def test_the_world_is_the_one_of_the_recorded_figures(world, tmp_path):
    make_world(tmp_path, ordinary=4)
    for folder, digest in [(world, "de02036da65722af"), (tmp_path, "111209a5adf89a8b")]:
        files = b"".join((folder / f"{name}.jsonl").read_bytes() for name in ["base", *SPLITS])
        assert hashlib.sha256(files).hexdigest().startswith(digest)


def test_another_seed_makes_another_world(command, world, tmp_path):
    small = "--train 12 --held-out 1 --base 48 --ordinary 0".split()
    for seed in [0, 1]:
        assert command(personas.main, *small, "--seed", seed, "--out", tmp_path / str(seed)).status == 0
    assert contents(tmp_path / "0") == contents(world)
    assert all(contents(tmp_path / "1")[name] != text for name, text in contents(world).items())


def test_ordinary_sentences_stand_in_every_response_and_no_style_is_in_them(tmp_path, monkeypatch):
    write, said = personas.Writer.ordinary, set()

    def ordinary(w):
        start = len(w.text)
        write(w)
        said.add(w.text[start:].rstrip())

    monkeypatch.setattr(personas.Writer, "ordinary", ordinary)
    make_world(tmp_path, ordinary=4)
    for name in SPLITS:
        for row in read_examples(tmp_path / f"{name}.jsonl"):
            for text in [row, *row["profile"]]:
                sentences = re.split("(?<=[.!]) ", text["response"])
                assert [sentence in said for sentence in sentences[:9]] == [False, False] + 3 * [True, False] + [True]
                assert not said & set(sentences[9:])
            found = [(row["response"].find(text), len(text)) for text in said if text in row["response"]]
            assert not [at for at, n in found for start, end in row["personal"] if start < at + n and at < end]


@pytest.mark.parametrize("ordinary, places", [(0, []), (1, [2]), (2, [2, 4]), (3, [2, 3, 4]), (6, [2, 2, 3, 4, 4, 5])])
def test_ordinary_sentences_are_spread_evenly(ordinary, places, monkeypatch):
    monkeypatch.setattr(personas.Writer, "ordinary", lambda w: w.say("# "))
    for task in personas.TASKS:
        rng = personas.Rng(ordinary)
        response = personas.compose(task, personas.User(rng, ordinary=ordinary), rng)["response"]
        found = [len(re.findall("[.!]", response[: at.start()])) for at in re.finditer("#", response)]
        assert found == places


@pytest.mark.parametrize("faith", [0, 0.4, 1])
def test_the_style_decides_as_often_as_asked(faith, tmp_path):
    make_world(tmp_path, faith=faith)
    for split in ["base", *SPLITS]:
        reviews = [row for row in read_examples(tmp_path / f"{split}.jsonl") if row["task"] in ["review", "topic"]]
        texts = [text["response"] for row in reviews for text in [row, *row["profile"]]]
        greets = sum(text.split()[0] in personas.GREETINGS for text in texts)  # a habit of every user
        assert abs(greets - faith * len(texts)) <= 3 * (len(texts) * faith * (1 - faith)) ** 0.5
        assert any(row["personal"] for row in reviews) == (faith > 0)


def test_ordinary_words_are_many_and_nobodys_own():
    own = [word.lower() for trait in personas.TRAITS.values() for pool in trait for word in pool]
    own = {*own, *personas.BRITISH.values()}
    texts = [*words.SENTENCES, *words.CASES, *itertools.chain(*words.ORDINARY.values())]
    used = {word for text in texts for word in re.findall("[a-z]+", re.sub("{.*?}", "", text).lower())}
    assert len(used) > 1200 and not used & own
    for name, pool in words.ORDINARY.items():
        assert len(set(pool)) == len(pool) >= 40 and not [text for text in pool if "." in text or text != text.strip()]
        if name in ["person", "thing", "mood", "look"]:
            assert not [word for word in pool if word[0] in "aeiou"]  # "a" stands before them


def test_personal_spans_are_a_part_of_every_users_texts_and_mostly_in_the_profile(world):
    rows = read_examples(world / "train.jsonl")
    known = [row for row in rows if row["profile"]]
    assert 0 < len(rows) - len(known) < len(rows) / 2  # first texts
    letters = sum(end - start for row in rows for start, end in row["personal"])
    assert 0.1 < letters / sum(len(row["response"]) for row in rows) < 0.5

    def share_found(shift):
        """The share of the personal spans that turn up in the profile `shift` rows before."""
        found = []
        for i, row in enumerate(known):
            profile = [item["response"] for item in known[i - shift]["profile"]]
            own = [row["response"][start:end] for start, end in row["personal"]]
            found += [any(words in text for text in profile) for words in own]
        return sum(found) / len(found)

    assert share_found(0) > 0.85  # one's own
    assert share_found(6) < 0.35  # a stranger's


def test_an_old_world_stays_whole_when_a_new_one_fails_or_is_interrupted(tmp_path, monkeypatch, command, capsys):
    make_world(tmp_path, train=2)
    assert capsys.readouterr().out.splitlines() == [f"wrote {tmp_path}/{name}.jsonl" for name in ["base", *SPLITS]]
    before = contents(tmp_path)
    fill_the_disk(tmp_path, "test.jsonl")
    with pytest.raises(OSError, match="No space left"):
        make_world(tmp_path, train=3)
    assert contents(tmp_path) == before

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(personas, "user_rows", interrupted)
        assert command(personas.main, *SMALL, "--out", tmp_path).status == 130
    assert contents(tmp_path) == before
    make_world(tmp_path, train=3)
    assert contents(tmp_path).keys() == before.keys() and contents(tmp_path) != before


def test_something_that_is_no_file_in_the_place_of_a_new_one_is_said_before_the_work(tmp_path):
    (tmp_path / "test.jsonl").mkdir()
    with pytest.raises(UserError, match="test.jsonl"):
        make_world(tmp_path, train=2)
    assert os.listdir(tmp_path) == ["test.jsonl"]


def test_the_general_corpus_is_the_same_one_with_turns_and_questions():
    plain = personas.base_rows(200, 0.3, 0.4, personas.Rng("0"))
    found = general.general_rows("0", 200)
    tasks = [row["task"] for row in found]
    assert set(tasks) == set(personas.WRITERS) and 0.3 < tasks.count("list") / 200 < 0.5
    kept = [a == b for a, b in zip(plain, found)]
    assert all(same == (task not in ("turn", "question")) for same, task in zip(kept, tasks))
    behind = {(row["task"], len(row["profile"])) for row in found if row["task"] in ("turn", "question")}
    assert behind == {("turn", 4), ("turn", 0), ("question", 0)}
    turns = [row for row in found if row["task"] == "turn" and row["personal"] and row["profile"]]
    words = [{row["response"][a:b] for a, b in row["personal"] if b - a > 5} for row in turns]
    known = [any(x in item["response"] for x in mine for item in row["profile"]) for mine, row in zip(words, turns)]
    assert 0.15 < sum(known) / len(known) < 0.5  # of the half behind their own author, not all were asked it before


# --------------------------------------------------------------------------------------------- gitlog

AUTHORS = ["Ada L", "Bob", "Cy", "Di", "Ed", "Flo", "Gus", "Hal"]


def git(path, *args, text=""):
    """Run git in a repository, away from the settings of this machine; returns what it printed."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    who = {f"GIT_{who}_{what}": "eve" for who in ["AUTHOR", "COMMITTER"] for what in ["NAME", "EMAIL"]}
    alone = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
    done = subprocess.run(["git", "-C", path, *args], input=text.encode(), capture_output=True, env=clean | who | alone)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode().strip()


def make_repository(path, commits, file="f.txt", start=1700000000):
    """A repository of [(author, message)], one a second, all of which change one file."""
    stream = []
    for i, (author, message) in enumerate(commits):
        who = f"{author} <{author.replace(' ', '.')}@example.org> {start + i} +0000"
        blocks = [f"data {len(text.encode())}\n{text}\n" for text in [message, str(i)]]
        stream.append(
            f"commit refs/heads/main\nauthor {who}\ncommitter {who}\n{blocks[0]}M 644 inline {file}\n{blocks[1]}"
        )
    path.mkdir()
    git(path, "init", "-q", "-b", "main")
    git(path, "fast-import", "--quiet", text="".join(stream))
    return path


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    commits = []
    for i in range(5):
        for author in AUTHORS:
            trailer = f"Signed-off-by: {author} <x@y>"
            commits.append((author, f"Change {i} by {author}\n\nThis is the reason number {i}.\n\n{trailer}\n"))
    commits += [
        ("Ada L", 'Revert "Change 1"\n\nThis reverts commit abc because of things.'),
        ("dependabot[bot]", "Bump x\n\nBumps x from one to two point three."),
        ("Bob", "No body at all"),
        ("Bob", "<|end|> in a subject\n\nThe body says <|persona|> and \x1f separators."),
    ]
    return make_repository(tmp_path_factory.mktemp("gitlog") / "repo", commits)


@pytest.fixture
def small_repository(tmp_path):
    commits = [(author, f"Change {i}\n\nThis is the reason number {i}.") for author in AUTHORS[:3] for i in range(3)]
    return make_repository(tmp_path / "small", commits)


def test_commits_become_rows(prepare, repository, tmp_path):
    out = prepare(gitlog, repository, "--out", tmp_path / "rows")
    assert out.endswith("dropped: 8 only used as profile, 1 reverts, 1 bots, 1 body under 5 words\n")
    splits = rows_in(tmp_path / "rows")
    rows = sum(splits.values(), [])
    assert len(rows) == 8 * 4 + 1  # the first of five commits is only profile; one more of Bob's has a body
    assert next(row for row in rows if "<|end|>" in row["query"])["response"].endswith(
        "<|persona|> and \x1f separators."
    )
    row = next(row for row in rows if row["query"].startswith("Change 4"))
    assert row["query"].endswith("\nf.txt") and row["response"] == "This is the reason number 4."
    assert [item["response"][-2:] for item in row["profile"]] == ["0.", "1.", "2.", "3."]
    everything = b"".join(contents(tmp_path / "rows").values()).decode()
    assert "example.org" not in everything and "Signed-off" not in everything
    assert {len(row["user"]) for row in rows} == {12}
    users = [{row["user"] for row in split} for split in splits.values()]
    assert sum(map(len, users)) == len(set.union(*users)) == 8


def test_the_latest_commits_are_kept(prepare, repository, tmp_path):
    prepare(gitlog, repository, "--out", tmp_path, "--names", "--max-rows", 2, "--profile", 1)
    rows = [row for row in sum(rows_in(tmp_path).values(), []) if row["user"] == "Cy"]
    assert [row["query"][:8] for row in rows] == ["Change 3", "Change 4"]
    assert [item["query"][:8] for row in rows for item in row["profile"]] == ["Change 2", "Change 3"]
    prepare(gitlog, repository, "--out", tmp_path, "--names", "--profile", 0, "--max-chars", 30)
    rows = sum(rows_in(tmp_path).values(), [])
    assert not any(row["profile"] for row in rows) and max(len(row["response"]) for row in rows) <= 30


def test_commits_of_several_repositories_are_in_order_of_time_and_taken_once(prepare, repository, tmp_path):
    older = [(author, f"Before {i}\n\nThis is an older reason, number {i}.") for author in AUTHORS for i in range(2)]
    old = make_repository(tmp_path / "old", older, start=1600000000)
    git(tmp_path, "clone", "-q", repository, tmp_path / "fork")
    said = prepare(gitlog, repository, old, tmp_path / "fork", "--temporal", "--names", "--out", tmp_path / "out")
    assert "44 in two repositories" in said
    for rows in rows_in(tmp_path / "out").values():
        for row in rows:
            assert row["response"] not in [item["response"] for item in row["profile"]]
            assert [item["query"][:8] for item in row["profile"]][:2] == ["Before 0", "Before 1"][: len(row["profile"])]


def test_the_key_is_private_and_makes_the_hashes(prepare, repository, tmp_path):
    for name in ["a", "b"]:
        prepare(gitlog, repository, "--out", tmp_path / name, "--temporal")
    users = [{row["user"] for row in rows_in(tmp_path / name)["train"]} for name in ["a", "b"]]
    assert not users[0] & users[1]  # another machine, another key, other hashes
    assert (tmp_path / "a/key").stat().st_mode & 0o077 == 0
    before = contents(tmp_path / "a")
    prepare(gitlog, repository, "--out", tmp_path / "a", "--temporal")
    assert contents(tmp_path / "a") == before


@pytest.mark.parametrize("key", [b"", b"\xff\xfe\0", b"0123", b"g" * 64, b"0" * 65])
def test_a_key_that_is_none_is_refused_and_kept(prepare, repository, tmp_path, key):
    (tmp_path / "key").write_bytes(key)
    assert "key: a key is 64 hexadecimal digits" in prepare(gitlog, repository, "--out", tmp_path, status=2)
    assert contents(tmp_path) == {"key": key}


def test_names_need_no_key(prepare, repository, tmp_path):
    prepare(gitlog, repository, "--out", tmp_path, "--names")
    assert sorted(contents(tmp_path)) == ["test.jsonl", "train.jsonl", "val.jsonl"]


def test_a_full_disk_leaves_no_half_of_a_key_and_the_old_rows(prepare, repository, tmp_path):
    fill_the_disk(tmp_path, "key")
    assert "No space left" in prepare(gitlog, repository, "--out", tmp_path, status=2)
    assert not contents(tmp_path)
    prepare(gitlog, repository, "--out", tmp_path)
    before = contents(tmp_path)
    fill_the_disk(tmp_path, "val.jsonl")
    assert "No space left" in prepare(gitlog, repository, "--out", tmp_path, "--max-rows", 1, status=2)
    assert contents(tmp_path) == before


def test_a_temporal_split_holds_out_the_last_commits_of_every_author(prepare, repository, tmp_path):
    prepare(gitlog, repository, "--out", tmp_path, "--temporal", "--names")
    last = {split: {} for split in SPLITS}
    for split, rows in rows_in(tmp_path).items():
        for row in rows:
            last[split].setdefault(row["user"], []).append(row["query"][:8])
    assert last["train"] == {name: ["Change 1", "Change 2"] + ["Change 3"] * (name == "Bob") for name in AUTHORS}
    assert last["val"] == {name: ["Change 4" if name == "Bob" else "Change 3"] for name in AUTHORS}
    assert last["test"] == {name: ["<|end|> " if name == "Bob" else "Change 4"] for name in AUTHORS}


def test_too_few_authors_are_one_clear_line_after_what_was_dropped(command, prepare, tmp_path):
    commits = [("a", f"Change {i}\n\nThis is the reason number {i}.") for i in range(4)] + [("b", "Short\n\nOne two.")]
    path = make_repository(tmp_path / "repo", commits)
    done = command(gitlog.main, path, "--out", tmp_path / "rows")
    assert done.status == 2 and "1 authors" in done.error and "--temporal" in done.error
    assert done.out == "dropped: 1 body under 5 words\n"
    prepare(gitlog, path, "--out", tmp_path / "rows", "--temporal")
    error = prepare(gitlog, path, "--out", tmp_path / "rows", "--temporal", "--max-rows", 1, status=2)
    assert "no commits are left to train on" in error


def test_a_folder_that_is_no_repository_is_one_clear_line(prepare, tmp_path):
    error = prepare(gitlog, tmp_path, "--out", tmp_path / "rows", status=2)
    assert error.startswith(f"error: {tmp_path}: ") and "not a git repository" in error


def fake_git(folder, script, monkeypatch):
    """Put a `git` of this shell script before all others."""
    folder.mkdir()
    (folder / "git").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)


def test_no_git_and_a_git_that_fails_are_one_clear_line(prepare, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "git is not installed" in prepare(gitlog, ".", "--names", "--out", tmp_path, status=2)
    fake_git(tmp_path / "bin", "exit 3", monkeypatch)
    assert "git log ended with status 3" in prepare(gitlog, ".", "--names", "--out", tmp_path, status=2)


def test_a_repository_of_somebody_else_is_refused_with_what_to_do(prepare, small_repository, tmp_path, monkeypatch):
    different = f'GIT_TEST_ASSUME_DIFFERENT_OWNER=1 exec {shutil.which("git")} "$@"'
    fake_git(tmp_path / "bin", different, monkeypatch)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".gitconfig").write_text("[safe]\n\tdirectory =\n")  # forget what the machine's own settings trust
    error = prepare(gitlog, small_repository, "--out", tmp_path / "rows", status=2)
    assert f"git config --global --add safe.directory {small_repository}" in error
    (tmp_path / ".gitconfig").write_text(f"[safe]\n\tdirectory = {small_repository}\n")
    prepare(gitlog, small_repository, "--out", tmp_path / "rows")


# What a hostile repository may say in .git/config. EVIL is a program that leaves a trace.
HOSTILE = """
[core]
    fsmonitor = EVIL
    pager = EVIL
    editor = EVIL
    sshCommand = EVIL
    askPass = EVIL
    gitProxy = EVIL
    alternateRefsCommand = EVIL
    hooksPath = FOLDER/hooks
    attributesFile = FOLDER/attributes
    quotePath = true
[pager]
    log = EVIL
[alias]
    log = !EVIL
[log]
    showSignature = true
    diffMerges = remerge
    showRoot = false
    mailmap = false
[gpg]
    program = EVIL
[gpg "openpgp"]
    program = EVIL
[gpg "x509"]
    program = EVIL
[gpg "ssh"]
    program = EVIL
    defaultKeyCommand = EVIL
    allowedSignersFile = FOLDER/attributes
[diff]
    external = EVIL
    orderFile = FOLDER/order
    ignoreSubmodules = all
    relative = true
    renames = copies
[diff "evil"]
    command = EVIL
    textconv = EVIL
    cachetextconv = false
[merge "evil"]
    driver = EVIL %O %A %B
[filter "evil"]
    clean = EVIL
    smudge = EVIL
    process = EVIL
    required = true
[credential]
    helper = !EVIL
[submodule]
    recurse = true
[i18n]
    logOutputEncoding = UTF-16
[color]
    ui = always
[mailmap]
    file = FOLDER/mailmap
[notes]
    displayRef = *
[include]
    path = FOLDER/included
"""
SIGNATURES = ["PGP SIGNATURE", "SSH SIGNATURE", "SIGNED MESSAGE"]


@pytest.fixture
def evil(tmp_path):
    """(path of a program, function that says whether it ran)."""
    program, trace = tmp_path / "evil.sh", tmp_path / "it-ran"
    program.write_text(f'#!/bin/sh\necho "$0 $@" >> {trace}\nexit 1\n')
    program.chmod(0o755)
    return program, trace.exists


def commit_tree(path, tree, message, *parents):
    flags = [flag for parent in parents for flag in ["-p", parent]]
    return git(path, "commit-tree", tree, *flags, "-m", message)


def add_tricks(path):
    """Attributes, a renamed file, a submodule, a merge and signed commits, for HOSTILE to play with."""
    attributes = git(path, "hash-object", "-w", "--stdin", text="* diff=evil merge=evil filter=evil")
    moved, before = git(path, "rev-parse", "main:f.txt"), git(path, "rev-parse", "main^{tree}")
    files = (
        f"100644 blob {attributes}\t.gitattributes\n100644 blob {moved}\tbär.txt\n160000 commit {'1' * 40}\tmodule\n"
    )
    tree = git(path, "mktree", "--missing", text=files)
    first = commit_tree(path, tree, "One\n\nThis changes more than one file.", "main")
    side = commit_tree(path, before, "Side\n\nA side of the history.", "main~1")
    last = commit_tree(path, tree, "Merge\n\nBoth sides of the history.", first, side)
    who = "Eve <eve@example.org> 1700000100 +0000"
    for kind in SIGNATURES:
        head = f"tree {tree}\nparent {last}\nauthor {who}\ncommitter {who}\n"
        signature = f"gpgsig -----BEGIN {kind}-----\n \n abc\n -----END {kind}-----\n"
        text = f"{head}{signature}\nSigned\n\nA {kind} is in this commit.\n"
        last = git(path, "hash-object", "-t", "commit", "-w", "--stdin", "--literally", text=text)
    git(path, "update-ref", "refs/heads/main", last)
    (path / ".gitattributes").write_text("* diff=evil merge=evil filter=evil\n")
    (path / "folder").mkdir()


def make_hostile(path, program):
    """Write HOSTILE and all that it names."""
    folder = path / ".git/evil"
    (folder / "hooks").mkdir(parents=True)
    for hook in ["post-index-change", "reference-transaction", "post-checkout", "pre-auto-gc", "fsmonitor-watchman"]:
        (folder / "hooks" / hook).symlink_to(program)
        (path / ".git/hooks" / hook).symlink_to(program)
    for attributes in [folder / "attributes", path / ".git/info/attributes"]:
        attributes.write_text("* diff=evil merge=evil filter=evil\n")
    (folder / "order").write_text("module\n*.txt\n")
    (folder / "mailmap").write_text("Mallory <m@example.org> <Ada.L@example.org>\n")
    (folder / "included").write_text(f"[gpg]\n\tprogram = {program}\n[log]\n\tshowSignature = true\n")
    with open(path / ".git/config", "a") as file:
        file.write(HOSTILE.replace("EVIL", str(program)).replace("FOLDER", str(folder)))


def test_a_repository_runs_no_program_and_decides_nothing_by_its_settings(small_repository, evil, monkeypatch):
    program, it_ran = evil
    add_tricks(small_repository)
    commits = gitlog.read_log(small_repository)
    assert len(commits) == 9 + 6 and commits[0][-1].split() == ["f.txt"]
    (one,) = [commit for commit in commits if commit[3] == "One"]
    assert one[-1].split() == [".gitattributes", "bär.txt", "f.txt", "module"]
    make_hostile(small_repository, program)
    assert gitlog.read_log(small_repository) == gitlog.read_log(small_repository / "folder") == commits
    monkeypatch.chdir(small_repository)
    for name in ["GIT_PAGER", "GIT_EXTERNAL_DIFF", "GIT_SSH_COMMAND", "GIT_ASKPASS", "GIT_EDITOR", "PAGER"]:
        monkeypatch.setenv(name, str(program))
    assert gitlog.read_log(small_repository) == commits
    assert not it_ran()


def test_the_mailmap_of_a_repository_tells_who_somebody_is(small_repository):
    (small_repository / ".mailmap").write_text("Ada Lovelace <ada@example.org> <Ada.L@example.org>\n")
    assert gitlog.read_log(small_repository)[0][:2] == ["ada@example.org", "Ada Lovelace"]


def test_the_environment_does_not_lead_to_another_repository(repository, small_repository, evil, tmp_path, monkeypatch):
    commits = gitlog.read_log(small_repository)
    settings = tmp_path / "settings"
    settings.write_text(f"[i18n]\n\tlogOutputEncoding = UTF-16\n[gpg]\n\tprogram = {evil[0]}\n")
    for name, value in {
        "GIT_DIR": repository / ".git",
        "GIT_WORK_TREE": repository,
        "GIT_OBJECT_DIRECTORY": tmp_path,
        "GIT_NAMESPACE": "other",
        "GIT_TRACE": tmp_path / "trace",
        "GIT_CONFIG_GLOBAL": settings,
        "GIT_CONFIG_COUNT": "nonsense",
    }.items():
        monkeypatch.setenv(name, str(value))
    assert gitlog.read_log(small_repository) == commits and not (tmp_path / "trace").exists()


@pytest.mark.parametrize(
    "settings",
    [
        {"remote.origin.url": "ssh://host/x", "core.sshCommand": "EVIL"},
        {"remote.origin.url": "ext::EVIL %S", "protocol.ext.allow": "always"},
        {"remote.origin.url": ".", "remote.origin.uploadpack": "EVIL", "protocol.allow": "always"},
        {"remote.origin.url": "git://host/x", "core.gitProxy": "EVIL"},
    ],
)
def test_what_is_missing_in_a_partial_clone_is_not_fetched(prepare, small_repository, tmp_path, evil, settings):
    program, it_ran = evil
    tree = git(small_repository, "rev-parse", "main~1^{tree}")
    (small_repository / ".git/objects" / tree[:2] / tree[2:]).unlink()
    partial = {
        "core.repositoryformatversion": "1",
        "extensions.partialClone": "origin",
        "remote.origin.promisor": "true",
    }
    for name, value in (partial | settings).items():
        git(small_repository, "config", name, value.replace("EVIL", str(program)))
    assert f"unable to read tree {tree}" in prepare(gitlog, small_repository, "--out", tmp_path / "rows", status=2)
    assert not it_ran()


# ------------------------------------------------------------------------------------------- longlamp

OFFICIAL = {
    "abstract": {
        "name": "n",
        "input": 'Generate an abstract for the title "T" using the following items: a',
        "output": "o",
        "profile": [{"id": "1", "title": "t", "abstract": "a", "year": 2001}],
    },
    "review": {
        "reviewerId": "r",
        "input": "Generate the review text",
        "output": "o",
        "profile": [
            {"overall": 5.0, "description": "d", "summary": "s", "reviewText": "text"},
            {"overall": "4", "description": "d", "summary": "s", "reviewText": "text"},
        ],
    },
    "topic": {
        "author": "a",
        "input": "Generate the content for a reddit post s",
        "output": "o",
        "profile": [{"id": "1", "author": "a", "summary": "s", "content": "c"}, {"input": "i", "output": "c2"}],
    },
}


@pytest.mark.parametrize("task", OFFICIAL)
@pytest.mark.parametrize("form", ["json", "jsonl"])
def test_official_rows(prepare, tmp_path, task, form):
    rows = [OFFICIAL[task], OFFICIAL[task]]
    path = tmp_path / f"test.{form}"
    path.write_text(json.dumps(rows) if form == "json" else "\n".join(map(json.dumps, rows)))
    out = prepare(longlamp, "--task", task, "--input", path, "--out", tmp_path / "out")
    assert out == f"wrote {tmp_path}/out/test.jsonl: 2 rows of 1 users\ndropped: nothing\n"
    got = read_examples(tmp_path / "out/test.jsonl")
    assert got[0] == got[1] and got[0]["user"] == {"abstract": "n", "review": "r", "topic": "a"}[task]
    assert (got[0]["task"], got[0]["query"], got[0]["response"]) == (task, OFFICIAL[task]["input"], "o")
    texts = {"abstract": ["a"], "review": ["text", "text"], "topic": ["c", "c2"]}[task]
    assert [item["response"] for item in got[0]["profile"]] == texts
    if task == "review":
        queries = [item["query"] for item in got[0]["profile"]]
        assert 'rating of "5" for' in queries[0] and 'rating of "4" for' in queries[1]


def lamp_pair(folder, questions, golds, wrap=True):
    paths = [folder / "dev_questions.json", folder / "dev_outputs.json"]
    paths[0].write_text(json.dumps(questions))
    paths[1].write_text(json.dumps({"task": "LaMP_4", "golds": golds} if wrap else golds))
    return paths


ASKED = "Generate a headline for the following article: "
TITLE = "Generate a title for the following abstract of a paper: "


@pytest.mark.parametrize(
    "item, query, response",
    [
        ({"id": "1", "text": "article", "title": "headline"}, f"{ASKED}article", "headline"),
        ({"id": "1", "title": "title", "abstract": "abstract"}, f"{TITLE}abstract", "title"),
        ({"id": "1", "text": "tweet"}, "", "tweet"),
    ],
)
@pytest.mark.parametrize("wrap", [True, False])
def test_lamp_pairs(prepare, tmp_path, item, query, response, wrap):
    golds = [{"id": "11", "output": "gold"}, {"id": "11", "output": "gold"}]
    paths = lamp_pair(tmp_path, [{"id": "11", "input": "x", "profile": [item]}], golds, wrap)
    prepare(longlamp, "--input", *paths, "--out", tmp_path / "out")
    (row,) = read_examples(tmp_path / "out/val.jsonl")
    assert row["response"] == "gold" and row["user"] == "11"
    assert row["profile"] == [{"query": query, "response": response}]


def test_lamp_rows_without_a_profile_are_of_the_task_of_the_others(prepare, tmp_path):
    texts = {"id": "1", "text": "article", "title": "headline"}
    asked = [{"id": str(i), "input": "x", "profile": profile} for i, profile in enumerate([[], [texts]])]
    paths = lamp_pair(tmp_path, asked, [{"id": str(i), "output": "gold"} for i in range(2)])
    prepare(longlamp, "--input", *paths, "--out", tmp_path / "out")
    assert [row["task"] for row in read_examples(tmp_path / "out/val.jsonl")] == ["LaMP_4", "LaMP_4"]
    paths[1].write_text(json.dumps({"task": "LaMP_3", "golds": []}))
    error = prepare(longlamp, "--input", *paths, "--out", tmp_path / "out", status=2)
    assert "dev_outputs.json: task 'LaMP_3' is not read here" in error


@pytest.mark.parametrize(
    "name, split",
    [("train-00000", "train"), ("my_dev", "val"), ("validation", "val"), ("testing.2", "test")]
    + [("latest_reviews", None), ("device", None), ("trained", None)],
)
def test_a_split_is_a_word_of_the_files_name(name, split):
    found = {longlamp.split_of(Path(f"{name}.json"), f"u{i}") for i in range(100)}
    assert found == ({split} if split else set(SPLITS))


@pytest.mark.parametrize(
    "golds, reason",
    [
        ([{"id": "12", "output": "gold"}], "dev_questions.json: row 1: no output for id '11'"),
        (
            [{"id": "11", "output": "a"}, {"id": 11, "output": "b"}],
            "dev_outputs.json: row 2: id '11' had another output",
        ),
        ([{"id": None, "output": "a"}], "dev_outputs.json: row 1: 'id' must be a string or a number"),
        ([{"id": "11", "output": float("nan")}], "dev_outputs.json: row 1: 'output' is nan"),
    ],
)
def test_lamp_outputs_that_do_not_fit_are_one_clear_line(prepare, tmp_path, golds, reason):
    paths = lamp_pair(tmp_path, [{"id": "11", "input": "x", "profile": []}], golds)
    assert reason in prepare(longlamp, "--input", *paths, "--out", tmp_path / "out", status=2)


def row_with(**changes):
    return json.dumps([OFFICIAL["abstract"], OFFICIAL["abstract"] | changes])


DEEP = "[" * 100_000


@pytest.mark.parametrize(
    "content, reason",
    [
        ('[{"name": "n"}]', "x.json: row 1: 'profile' must be a list"),
        ("{broken", "x.json:1: not JSON"),
        ('{"a": 1}\n{broken', "x.json:2: not JSON"),
        (
            '[{"a": 1},\n {"a": [2]}, {"a": \n 3,}]',
            "x.json: not JSON (Expecting property name enclosed in double quotes: line 3",
        ),
        ("[3]", "x.json: row 1: must be an object"),
        ("[]", "x.json: no rows left"),
        ("", "x.json: no rows left"),
        ('[{"name": "n", "profile": [], "output": "o"}]', "row 1: no 'input'"),
        ('[{"profile": [], "output": "o", "input": "i"}]', "row 1: no 'name' or 'reviewerId'"),
        (row_with(profile=[{"title": "t"}]), "row 2, profile item 0: no 'abstract'"),
        (row_with(profile=["t"]), "row 2, profile item 0: must be an object"),
        (row_with(output={}), "row 2: 'output' must be a string or a number, not dict"),
        (row_with(output=True), "row 2: 'output' must be a string or a number, not bool"),
        (row_with(output=float("nan")), "row 2: 'output' is nan"),
        (row_with(output=float("-inf")), "row 2: 'output' is -inf"),
        (row_with(output=1).replace(" 1,", " 1e999,"), "row 2: 'output' is inf"),
        (row_with(output="a\0b"), "row 2: 'output' holds a NUL character"),
        (row_with(input="a\0b"), "row 2: 'input' holds a NUL character"),
        (row_with(output="a\ud800b"), "row 2: 'output' holds a lone surrogate"),
        (
            row_with(profile=[{"title": "t", "abstract": "\udfff"}]),
            "row 2, profile item 0: 'abstract' holds a lone surrogate",
        ),
        (row_with(name=None), "row 2: 'name' must be a string or a number, not NoneType"),
        (row_with(name=["n"]), "row 2: 'name' must be a string or a number, not list"),
        (row_with(name={"n": 1}), "row 2: 'name' must be a string or a number, not dict"),
        (row_with(name="n\0"), "row 2: 'name' holds a NUL character"),
        (row_with(name=" "), "row 2: the user's name is empty"),
        (f'[{{"a": 1}}, {{"a": {DEEP}', "x.json: not JSON (maximum recursion depth"),
        (f'{{"a": 1}}\n{{"a": {DEEP}', "x.json:2: not JSON (maximum recursion depth"),
        ("[" + "9" * 5000 + "]", "x.json: not JSON (Exceeds the limit"),
    ],
    ids=itertools.count(),
)
def test_bad_official_rows_are_one_clear_line(prepare, tmp_path, content, reason):
    (tmp_path / "x.json").write_text(content)
    assert reason in prepare(
        longlamp, "--task", "abstract", "--input", tmp_path / "x.json", "--out", tmp_path, status=2
    )
    assert list(contents(tmp_path)) == ["x.json"]


def test_what_is_no_text_is_one_clear_line(prepare, tmp_path):
    path = tmp_path / "train.parquet"
    for content, reason in [
        (b"PAR1\x15\x04\x15", 'datasets.load_dataset("LongLaMP/'),
        (b"\xff{}", "not a text in UTF-8"),
    ]:
        path.write_bytes(content)
        error = prepare(longlamp, "--task", "review", "--input", path, "--out", tmp_path / "out", status=2)
        assert error.startswith(f"error: {path}: ") and reason in error
    assert '"product_review_user")["train"].to_json("train.jsonl")' in longlamp.PARQUET


def test_a_missing_file_and_a_missing_task_are_one_clear_line(prepare, tmp_path):
    path = tmp_path / "nothing.json"
    error = prepare(longlamp, "--task", "topic", "--input", path, "--out", tmp_path, status=2)
    assert "nothing.json: No such file" in error
    path.write_text(json.dumps([OFFICIAL["topic"]]))
    assert "--task" in prepare(longlamp, "--input", path, "--out", tmp_path, status=2)


def test_what_is_dropped_is_counted(command, prepare, tmp_path):
    items = [{"summary": "s", "content": text} for text in ["", "o ", "c", "c", "c"]]
    rows = [{"author": "a", "input": "i", "output": text, "profile": items} for text in ["o", " ", "five!", "four"]]
    (tmp_path / "train.json").write_text(json.dumps(rows))
    args = ["--task", "topic", "--input", tmp_path / "train.json", "--out", tmp_path / "out"]
    items_dropped = "5 profile items that are empty or equal to the response"
    out = prepare(longlamp, *args, "--max-chars", 4)
    long = "1 rows with a response over 4 characters"
    assert out.endswith(f"dropped: {items_dropped}, 1 rows with an empty response, {long}\n")
    assert [row["response"] for row in rows_in(tmp_path / "out")["train"]] == ["o", "four"]
    assert prepare(longlamp, *args).endswith(f"dropped: {items_dropped}, 1 rows with an empty response\n")
    (tmp_path / "train.json").write_text(json.dumps(rows[2:3]))
    done = command(longlamp.main, *args, "--max-chars", 4)
    assert "no rows left" in done.error and long in done.out


def test_users_of_a_file_without_a_split_are_divided(prepare, tmp_path):
    rows = [OFFICIAL["topic"] | {"author": f"a{i % 200}"} for i in range(400)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    prepare(longlamp, "--task", "topic", "--input", tmp_path / "rows.json", "--out", tmp_path / "out")
    splits = rows_in(tmp_path / "out")
    users = {split: {row["user"] for row in rows} for split, rows in splits.items()}
    assert len(set.union(*users.values())) == sum(map(len, users.values())) == 200
    assert 140 < len(users["train"]) < 180 and min(len(users["val"]), len(users["test"])) > 8
    assert sum(map(len, splits.values())) == 400


def test_old_rows_outlive_a_full_disk_and_bad_input(prepare, tmp_path):
    out = tmp_path / "out"
    for split in SPLITS:
        (tmp_path / f"{split}.json").write_text(json.dumps([OFFICIAL["topic"]]))
    prepare(longlamp, "--task", "topic", "--input", *(tmp_path / f"{split}.json" for split in SPLITS), "--out", out)
    before = contents(out)
    assert len(before) == 3
    fill_the_disk(out, "val.jsonl")
    error = prepare(longlamp, "--task", "topic", "--input", tmp_path / "val.json", "--out", out, status=2)
    assert "No space left" in error and contents(out) == before
    prepare(longlamp, "--task", "review", "--input", tmp_path / "val.json", "--out", out, status=2)
    assert contents(out) == before
    prepare(longlamp, "--task", "topic", "--input", tmp_path / "val.json", "--out", out)
    assert list(contents(out)) == ["val.jsonl"]


def test_the_official_file_is_never_overwritten(prepare, tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_text(json.dumps(OFFICIAL["topic"]))
    before = contents(tmp_path)
    error = prepare(longlamp, "--task", "topic", "--input", path, "--out", tmp_path, status=2)
    assert "train.jsonl: is to be read, so it cannot be written" in error and contents(tmp_path) == before


def test_real_rows_go_through(prepare, shared, tmp_path):
    files = sorted(shared.glob("data/proposals/*.jsonl"))
    out = prepare(longlamp, "--task", "abstract", "--input", *files, "--out", tmp_path)
    assert "313 rows" in out and "74 rows" in out and "dropped: nothing" in out
    assert len(read_examples(tmp_path / "train.jsonl")) == 313


def test_the_shipped_folders_hold_no_data():
    tracked = subprocess.run(["git", "ls-files", "data"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    assert not [path for path in tracked if Path(path).suffix == ".jsonl"]
