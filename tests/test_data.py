"""The three sources of rows: synthetic users, git histories, and LongLaMP and LaMP files."""

import hashlib
import json
import os
import re
import subprocess
import sys
from collections import Counter
from itertools import product
from pathlib import Path

import pytest

from data.gitlog import prepare as gitlog
from data.longlamp import prepare as longlamp
from data.personas import general, words
from data.personas import prepare as personas
from data.splits import write_splits
from perce_mini.rows import read_examples
from perce_mini.runtime.errors import UserError
from tests.conftest import ROOT

SPLITS = ["train", "val", "test"]


@pytest.fixture
def prepare(command):
    """prepare(script, *args) returns the script's output or, with status=2, its error message."""

    def run(script, *args, status=0):
        done = command(script.main, *args)
        assert done.status == status, done.err
        assert status == 0 or done.err.count("\n") == 1, done.err
        return done.err if status else done.out + done.err

    return run


def rows_in(folder):
    """Return {split: rows} for the splits that have a file."""
    paths = {split: folder / f"{split}.jsonl" for split in SPLITS}
    return {split: read_examples(path) for split, path in paths.items() if path.exists()}


def all_rows(folder):
    return sum(rows_in(folder).values(), [])


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# --------------------------------------------------------------------------------- all the scripts


@pytest.mark.parametrize("source", ["personas", "gitlog", "longlamp"])
def test_the_scripts_run_from_any_folder(source, tmp_path):
    command = [sys.executable, ROOT / "data" / source / "prepare.py", "--help"]
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    assert b"--out" in subprocess.check_output(command, cwd=tmp_path, env=clean)


def test_a_file_in_place_of_the_output_folder_is_refused_before_the_work(prepare, tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    official = ["--task", "topic", "--input", "nothing.json"]
    for script, args in [(personas, []), (gitlog, ["nothing"]), (longlamp, official)]:
        assert str(file) in prepare(script, *args, "--out", file, status=2)
    assert file.read_text() == "mine"


ROW = {"user": "u", "task": "t", "query": "", "response": "r", "profile": []}


def test_splits_are_counted_and_a_split_without_rows_loses_its_file(tmp_path, capsys):
    write_splits(tmp_path, {split: [ROW] for split in SPLITS}, {"bad": 0})
    assert "dropped: nothing" in capsys.readouterr().out
    new = {"train": [ROW, ROW | {"user": "v"}, ROW], "val": [], "test": [ROW]}
    write_splits(tmp_path, new, {"bad": 2, "good": 0, "long": 1})
    wrote_train, removed_val, wrote_test, dropped = capsys.readouterr().out.splitlines()
    assert "train.jsonl: 3 rows from 2 users" in wrote_train and "val.jsonl" in removed_val
    assert "test.jsonl: 1 row from 1 user" in wrote_test and dropped == "dropped: 2 bad, 1 long"
    assert rows_in(tmp_path) == {"train": new["train"], "test": new["test"]}


# ---------------------------------------------------------------------------------------- personas


@pytest.mark.parametrize(
    "flags, digest",
    [
        ("", "03eff166ae28fa82"),
        ("--ordinary 0", "cbb1257254981577"),
        ("--faith 0.4", "173c4b231b422be0"),
        ("--seed 1", "4e489ea1a5a188cb"),
    ],
)
def test_the_world_is_the_one_of_the_recorded_results(command, tmp_path, flags, digest):
    small = "--train 12 --held-out 1 --base 48".split()
    done = command(personas.main, *small, *flags.split(), "--out", tmp_path)
    assert "train.jsonl: 36 rows from 36 users" in done.out
    files = [(tmp_path / f"{name}.jsonl").read_bytes() for name in ["base", *SPLITS]]
    assert hashlib.sha256(b"".join(files)).hexdigest().startswith(digest)


def test_splits_share_no_user_and_held_out_names_are_not_trained_on(world):
    users = [{row["user"] for row in split} for split in rows_in(world).values()]
    assert sum(map(len, users)) == len(set.union(*users))
    names = set()
    for kind in ["", "nick ", "tool "]:
        pairs = product(words.STYLE[f"{kind}stem"], words.STYLE[f"{kind}ending"])
        names |= {stem + ending for stem, ending in pairs}

    def names_in(*splits):
        text = " ".join((world / f"{split}.jsonl").read_text() for split in splits)
        return names & {*re.findall("[A-Z][a-z]+", text)}

    trained_on, held_out = names_in("base", "train"), names_in("val", "test")
    assert len(trained_on) > 400 and len(held_out) >= 20 and not trained_on & held_out


def test_the_general_corpus_replaces_some_texts_by_turns_and_questions():
    plain = personas.splits(base=200)["base"](personas.Rng("0"))
    rows = general.general_rows("0", 200)
    new = [row for row in rows if row["task"] in ("turn", "question")]
    assert all(row in plain for row in rows if row not in new) and 40 < len(new) < 100
    kinds = {(row["task"], len(row["profile"])) for row in new}
    assert kinds == {("turn", 4), ("turn", 0), ("question", 0)}
    assert all(row["personal"] for row in general.chats("0", 3))
    (row,) = general.questions("0", 1)
    assert row["response"].rstrip(".") in row["query"]


# ------------------------------------------------------------------------------------------ gitlog

AUTHORS = ["Ada L", "Bob", "Cy", "Di", "Ed", "Flo", "Gus", "Hal"]


def git(path, *args, text=""):
    """Run git without this machine's settings, and return its output."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    env |= {f"GIT_{who}_NAME": "eve" for who in ["AUTHOR", "COMMITTER"]}
    env |= {f"GIT_{who}_EMAIL": "eve@example.org" for who in ["AUTHOR", "COMMITTER"]}
    env |= {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
    command = ["git", "-C", path, *map(str, args)]
    done = subprocess.run(command, input=text.encode(), capture_output=True, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode().strip()


def make_repository(path, commits, start=1700000000):
    """Make a repository from [(author, message), ...]: one commit per second, each changing a file.

    Ada L's address is Ada.L@example.org; the author "Ada L <a@b>" has a different one.
    """
    stream = []
    for i, (author, message) in enumerate(commits):
        address = f" <{author.replace(' ', '.')}@example.org>"
        who = f"{author}{'' if '<' in author else address} {start + i} +0000"
        stream.append(f"commit refs/heads/main\nauthor {who}\ncommitter {who}\n")
        stream.append(f"data {len(message.encode())}\n{message}\n")
        stream.append(f"M 644 inline f.txt\ndata {len(str(i))}\n{i}\n")
    path.mkdir()
    git(path, "init", "-q", "-b", "main")
    git(path, "fast-import", "--quiet", text="".join(stream))
    return path


def changes(*authors, n=3, word="Change"):
    """Return n commits per author, alternating between the authors."""
    message = "{} {} by {}\n\nThis is the reason of {} number {}."
    return [(x, message.format(word, i, x, word, i)) for i in range(n) for x in authors]


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    commits = [(who, f"{text}\n\nSigned-off-by: x@y\n") for who, text in changes(*AUTHORS, n=5)]
    commits += [
        ("Ada L", 'Revert "Change 1"\n\nThis reverts commit abc because of things.'),
        ("dependabot[bot]", "Bump x\n\nBumps x from one to two point three."),
        ("Bob", "No body at all"),
        ("Bob", "<|end|> in a subject\n\nThe body says <|persona|> and \x1f separators."),
    ]
    return make_repository(tmp_path_factory.mktemp("gitlog") / "repo", commits)


@pytest.fixture
def small_repository(tmp_path):
    return make_repository(tmp_path / "small", changes("Ada L", "Bob", "Cy"))


def test_commits_become_rows(prepare, repository, tmp_path):
    out = prepare(gitlog, repository, "--out", tmp_path)
    dropped = "8 commits used only in profiles, 1 reverts, 1 commits by bots, 1 commits with a body"
    assert f"{dropped} under 5 words\n" in out
    rows = all_rows(tmp_path)
    assert len(rows) == 8 * 4 + 1  # first commits are only in profiles; Bob has one more
    (row,) = [row for row in rows if "<|end|>" in row["query"]]
    assert row["response"].endswith("<|persona|> and \x1f separators.")
    row = next(row for row in rows if row["query"].startswith("Change 4"))
    assert row["query"].endswith("\nf.txt") and row["response"].endswith("Change number 4.")
    assert [item["response"][-2:] for item in row["profile"]] == ["0.", "1.", "2.", "3."]
    everything = b"".join(contents(tmp_path).values()).decode()
    assert "example.org" not in everything and "Signed-off" not in everything
    users = [{row["user"] for row in split} for split in rows_in(tmp_path).values()]
    assert sum(map(len, users)) == len(set.union(*users)) == 8


def test_a_temporal_split_holds_out_everybodys_last_commits(
    prepare, repository, tmp_path, monkeypatch
):
    monkeypatch.setattr(gitlog, "PROFILE", 2)
    prepare(gitlog, repository, "--temporal", "--max-rows", 3, "--out", tmp_path)
    assert sorted(contents(tmp_path)) == ["test.jsonl", "train.jsonl", "val.jsonl"]
    for split, i in {"train": 2, "val": 3, "test": 4}.items():
        (row,) = [row for row in rows_in(tmp_path)[split] if row["user"] == "author 3"]  # Cy
        numbers = [text["query"][:8] for text in [*row["profile"], row]]
        assert numbers == [f"Change {i - 2}", f"Change {i - 1}", f"Change {i}"]


def test_several_repositories_are_read_by_time_and_clones_once(prepare, repository, tmp_path):
    older = changes(*AUTHORS, n=2, word="Before")
    old = make_repository(tmp_path / "old", older, start=1600000000)
    git(tmp_path, "clone", "-q", repository, tmp_path / "fork")
    paths = [repository, old, tmp_path / "fork"]
    said = prepare(gitlog, *paths, "--temporal", "--out", tmp_path / "out")
    assert "44 repeated" in said
    for row in all_rows(tmp_path / "out"):
        first = [item["query"][:8] for item in row["profile"]][:2]
        assert first == ["Before 0", "Before 1"][: len(first)]


def test_a_cherry_pick_counts_once_and_no_answer_is_in_a_profile(prepare, tmp_path):
    commits = changes("Bob", "Cy", "Di", n=4)
    commits.append(("Bob", "Again\n\nThis is  the reason\nof Change number 1."))
    repo = make_repository(tmp_path / "repo", commits)
    git(repo, "checkout", "-q", "-b", "side", "main~6")
    git(repo, "cherry-pick", "-x", "-Xtheirs", "main~3")  # Bob's second-to-last commit
    git(repo, "checkout", "-q", "main")
    git(repo, "merge", "-q", "-s", "ours", "-m", "Merge", "side")
    said = prepare(gitlog, repo, "--out", tmp_path / "rows")
    assert "1 repeated" in said and "1 profile items equal to the response" in said
    rows = [row for row in all_rows(tmp_path / "rows") if row["user"] == "author 1"]  # Bob
    assert [row["query"][:8] for row in rows] == ["Change 1", "Change 2", "Change 3", "Again\nf."]
    numbers = [item["query"][7] for item in rows[-1]["profile"]]
    assert numbers == ["0", "2", "3"]


def test_an_address_is_a_user_who_is_numbered_by_the_first_commit(prepare, tmp_path):
    people = [
        "Few <few@one.org>",
        "Eve <eve@one.org>",
        "Eve Smith <Eve@one.org>",
        "Eve <eve@two.org>",
    ]
    commits = [*changes(people[0], n=1), *changes(*people[1:], n=4)]
    repo = make_repository(tmp_path / "repo", commits)
    prepare(gitlog, repo, "--temporal", "--out", tmp_path / "rows")
    users = {}
    for row in all_rows(tmp_path / "rows"):
        address = re.search("<(.*)>", row["query"])[1].lower()
        users.setdefault(address, set()).add(row["user"])
    assert users == {"eve@one.org": {"author 2"}, "eve@two.org": {"author 3"}}
    again = contents(tmp_path / "rows")
    prepare(gitlog, repo, "--temporal", "--out", tmp_path / "rows")
    assert contents(tmp_path / "rows") == again


def test_too_few_authors_are_one_line_after_what_was_dropped(command, tmp_path):
    repo = make_repository(tmp_path / "repo", changes("a", n=4) + [("b", "Short\n\nOne two.")])
    done = command(gitlog.main, repo, "--out", tmp_path / "rows")
    assert done.status == 2 and "1 author" in done.error and "1 commits with" in done.out
    assert not contents(tmp_path / "rows")
    assert command(gitlog.main, repo, "--out", tmp_path / "rows", "--temporal").status == 0


def test_no_repository_no_git_and_a_git_that_fails_are_one_line(prepare, tmp_path, monkeypatch):
    args = [gitlog, tmp_path, "--out", tmp_path / "rows"]
    assert "not a git repository" in prepare(*args, status=2)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "git is not installed" in prepare(*args, status=2)
    (tmp_path / "git").write_text("#!/bin/sh\nexit 3\n")
    (tmp_path / "git").chmod(0o755)
    assert "status 3" in prepare(*args, status=2)


# What a hostile repository may put in .git/config. EVIL is a program that leaves a trace.
HOSTILE = """core.fsmonitor=EVIL log.showSignature=true gpg.program=EVIL diff.orderFile=ORDER
    diff.ignoreSubmodules=all diff.renames=copies mailmap.file=MAILMAP i18n.logOutputEncoding=UTF-16
    """


@pytest.fixture
def evil(tmp_path):
    """Return (path of a program, function that tells whether it ran)."""
    program, trace = tmp_path / "evil.sh", tmp_path / "it-ran"
    program.write_text(f'#!/bin/sh\necho "$0 $@" >> {trace}\nexit 1\n')
    program.chmod(0o755)
    return program, trace.exists


def test_a_hostile_repository_runs_no_program_and_changes_no_row(
    small_repository, evil, monkeypatch
):
    repo, (program, it_ran) = small_repository, evil
    # A signed commit that renames a file and adds a submodule.
    moved = git(repo, "rev-parse", "main:f.txt")
    files = f"100644 blob {moved}\tbär.txt\n160000 commit {'1' * 40}\tmodule\n"
    tree, parent = git(repo, "mktree", "--missing", text=files), git(repo, "rev-parse", "main")
    who = "Eve <eve@example.org> 1700000100 +0000"
    commit = f"tree {tree}\nparent {parent}\nauthor {who}\ncommitter {who}\ngpgsig -----BEGIN PGP"
    commit += " SIGNATURE-----\n \n abc\n -----END PGP SIGNATURE-----\n\nSigned\n\nHere it is.\n"
    commit = git(repo, "hash-object", "-t", "commit", "-w", "--stdin", "--literally", text=commit)
    git(repo, "update-ref", "refs/heads/main", commit)
    log = gitlog.read_log(repo)
    assert log[-1].paths.split() == ["bär.txt", "f.txt", "module"]
    (repo / ".gitmodules").write_text("[submodule]\n")
    (repo / "order").write_text("module\n*.txt\n")
    (repo / "mailmap").write_text("Mallory <m@example.org> <Ada.L@example.org>\n")
    places = {"EVIL": str(program), "ORDER": f"{repo}/order", "MAILMAP": f"{repo}/mailmap"}
    for name, value in [setting.split("=") for setting in HOSTILE.split()]:
        git(repo, "config", name, places.get(value, value))
    monkeypatch.chdir(repo / ".git")
    assert gitlog.read_log(repo) == gitlog.read_log(Path("..")) == log
    assert not it_ran()


def test_replace_refs_and_grafts_change_no_history(small_repository):
    log = gitlog.read_log(small_repository)
    tree = git(small_repository, "rev-parse", "main^{tree}")
    fake = git(small_repository, "commit-tree", tree, "-m", "Fake\n\nThis never happened here.")
    git(small_repository, "replace", "main~2", fake)
    graft = git(small_repository, "rev-parse", "main~1")
    (small_repository / ".git/info/grafts").write_text(f"{graft}\n")
    assert gitlog.read_log(small_repository) == log


def test_the_mailmap_counts_and_the_environment_does_not(
    repository, small_repository, tmp_path, monkeypatch
):
    mailmap = "Ada Lovelace <ada@example.org> <Ada.L@example.org>\n"
    (small_repository / ".mailmap").write_text(mailmap)
    log = gitlog.read_log(small_repository)
    assert (log[0].email, log[0].name) == ("ada@example.org", "Ada Lovelace")
    monkeypatch.setenv("GIT_DIR", str(repository / ".git"))
    monkeypatch.setenv("GIT_TRACE", str(tmp_path / "trace"))
    assert gitlog.read_log(small_repository) == log and not (tmp_path / "trace").exists()


def test_nothing_is_fetched_for_a_partial_clone(small_repository, evil):
    program, it_ran = evil
    tree = git(small_repository, "rev-parse", "main~1^{tree}")
    (small_repository / ".git/objects" / tree[:2] / tree[2:]).unlink()
    settings = {"remote.origin.url": "ssh://host/x", "core.sshCommand": program}
    settings |= {"core.repositoryformatversion": 1, "remote.origin.promisor": "true"}
    for name, value in (settings | {"extensions.partialClone": "origin"}).items():
        git(small_repository, "config", name, value)
    with pytest.raises(UserError, match="small: fatal"):
        gitlog.read_log(small_repository)
    assert not it_ran()


# ---------------------------------------------------------------------------------------- longlamp

ITEMS = {
    "abstract": {"id": "1", "title": "t", "abstract": "a", "year": 2001},
    "review": {"overall": 5.0, "description": "d", "summary": "s", "reviewText": "r"},
    "topic": {"author": "a", "summary": "s", "content": "c"},
}
USER_KEYS = {"abstract": "name", "review": "reviewerId", "topic": "author"}


def official(task, **changes):
    """A row in LongLaMP's official format."""
    row = {USER_KEYS[task]: "n", "input": "i", "output": "o", "profile": [ITEMS[task]]}
    return row | changes


@pytest.fixture
def convert(prepare, tmp_path):
    """convert(task, text, name of the file) runs the script: ({split: rows}, output)."""

    def run(task, text, name, status=0):
        (tmp_path / name).write_text(text)
        args = ["--task", task, "--input", tmp_path / name, "--out", tmp_path / "out"]
        said = prepare(longlamp, *args, status=status)
        return rows_in(tmp_path / "out"), said

    return run


@pytest.mark.parametrize("task", ITEMS)
@pytest.mark.parametrize("form", ["json", "jsonl"])
def test_official_rows(convert, task, form):
    text = json.dumps(official(task))
    text = f"[{text}, {text}]" if form == "json" else f"\ufeff{text}\n{text}\n"
    splits, said = convert(task, text, f"test.{form}")
    assert "2 rows from 1 user\n" in said and "dropped: nothing" in said
    row = splits["test"][0]
    assert len(row.pop("profile")) == 1
    assert row == {"user": "n", "task": task, "query": "i", "response": "o"}


PRODUCT = (
    ' rating of "5" for a product with description "d". The summary of the review text is "s".'
)


@pytest.mark.parametrize(
    "task, item, query, response",
    [
        ("abstract", ITEMS["abstract"], ' for the title "t"', "a"),
        ("review", ITEMS["review"], PRODUCT, "r"),
        ("topic", ITEMS["topic"], " reddit post s", "c"),
        ("topic", {"summary": None, "input": "s", "output": "c"}, " reddit post s", "c"),
        # a missing or unusable field is empty
        *(("abstract", {"title": x, "abstract": "a"}, ' ""', "a") for x in [None, 1e999, [], "\0"]),
    ],
)
def test_a_profile_item_becomes_a_query_and_a_response(task, item, query, response):
    row = longlamp.convert(official("abstract", profile=[item]), "row 1", task, Counter())
    (item,) = row["profile"]
    assert item["query"].endswith(query) and item["response"] == response


def lamp_pair(folder, questions, golds, task="LaMP_4"):
    paths = [folder / "dev_questions.json", folder / "dev_outputs.json"]
    paths[0].write_text(json.dumps(questions))
    paths[1].write_text(json.dumps({"task": task, "golds": golds}))
    return paths


@pytest.mark.parametrize(
    "task, item, query, response",
    [
        ("LaMP_4", {"text": "x y", "title": "t"}, "the following article: x y", "t"),
        ("LaMP_5", {"title": "t", "abstract": "x"}, "abstract of a paper: x", "t"),
        ("LaMP_7", {"id": "1", "text": "tweet"}, "", "tweet"),
    ],
)
def test_lamp_pairs(prepare, tmp_path, task, item, query, response):
    profiles = [[], [{"id": "2"}, item]]
    questions = [{"id": str(i), "input": "x", "profile": p} for i, p in enumerate(profiles)]
    golds = [{"id": "0", "output": "gold"}, {"id": "1", "output": "gold"}]
    prepare(longlamp, "--input", *lamp_pair(tmp_path, questions, golds, task), "--out", tmp_path)
    first, second = rows_in(tmp_path)["val"]
    assert first["task"] == second["task"] == task
    assert (second["user"], second["response"]) == ("1", "gold")
    assert second["profile"][0]["query"].endswith(query) and len(second["profile"]) == 1
    assert second["profile"][0]["response"] == response


@pytest.mark.parametrize(
    "task, golds, reason",
    [
        ("LaMP_4", [{"id": "12", "output": "a"}], "questions.json: row 1: no output for id '11'"),
        ("LaMP_4", [{"id": "1", "output": x} for x in "ab"], "outputs.json: row 2: id '1'"),
        ("LaMP_3", [], "outputs.json: task 'LaMP_3'"),
    ],
)
def test_lamp_outputs_that_do_not_fit_are_one_line(prepare, tmp_path, task, golds, reason):
    paths = lamp_pair(tmp_path, [{"id": "11", "input": "x", "profile": []}], golds, task)
    assert reason in prepare(longlamp, "--input", *paths, "--out", tmp_path / "out", status=2)


def test_a_split_is_a_word_in_the_name_of_the_file():
    names = {"train-0": "train", "my_dev": "val", "validation": "val", "testing.2": "test"}
    for name, split in names.items():
        assert longlamp.split_of(Path(f"{name}.json"), "u") == split
    for name in ["latest_reviews", "device", "trained"]:
        splits = [longlamp.split_of(Path(f"{name}.json"), f"u{i}") for i in range(200)]
        assert 140 < splits.count("train") < 180 and set(splits) == set(SPLITS)


def test_what_is_dropped_is_counted(prepare, tmp_path):
    items = [{"summary": "s", "content": text} for text in ["", " ", None, "a\nb ", "c"]]
    items += [{"summary": "s"}, "c", None]
    rows = [official("topic", output=text, profile=items) for text in ["a b", " ", "long"]]
    (tmp_path / "train.json").write_text(json.dumps(rows))
    args = ["--task", "topic", "--input", tmp_path / "train.json", "--out", tmp_path / "out"]
    said = prepare(longlamp, *args, "--max-chars", 3)
    (row,) = all_rows(tmp_path / "out")
    assert [item["response"] for item in row["profile"]] == ["c"]
    assert "18 profile items without a text, 1 profile items equal to the response, " in said
    assert "1 rows with an empty response, 1 rows with a response over 3 characters\n" in said


def rows_with(**changes):
    return json.dumps([official("abstract"), official("abstract", **changes)])


@pytest.mark.parametrize(
    "content, reason",
    [
        ('[{"name": "n"}]', "x.json: row 1: 'profile'"),
        ('{"id": "1", "output": "a"}\n{broken', "x.json:2: not JSON"),
        ("[" * 100_000, "x.json: not JSON"),
        ("", "x.json: no rows"),
        ('[{"name": "n", "profile": [], "output": "o"}]', "row 1: no 'input'"),
        (rows_with(output=float("nan")), "row 2: 'output'"),
        (rows_with(output="a\0b"), "row 2: 'output'"),
        (rows_with(name=True), "row 2: 'name'"),
        (rows_with(name=" "), "row 2: the user's name"),
    ],
)
def test_a_row_that_cannot_be_used_is_one_line(convert, content, reason):
    splits, error = convert("abstract", content, "x.json", status=2)
    assert reason in error and not splits


def test_what_is_no_text_file_is_one_line(prepare, tmp_path):
    (tmp_path / "latin.json").write_bytes(b"\xff{}")
    os.mkfifo(tmp_path / "pipe.json")
    reasons = {"latin.json": "UTF-8", "pipe.json": "regular", "no.json": "No such"}
    for name, reason in reasons.items():
        args = ["--task", "review", "--input", tmp_path / name, "--out", tmp_path / "out"]
        error = prepare(longlamp, *args, status=2)
        assert name in error and reason in error
    (tmp_path / "rows.json").write_text(json.dumps([official("topic")]))
    args = ["--input", tmp_path / "rows.json", "--out", tmp_path / "out"]
    assert "--task" in prepare(longlamp, *args, status=2)


def test_an_input_file_is_never_overwritten(prepare, tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_text(json.dumps(official("topic")))
    (tmp_path / "link").symlink_to(tmp_path)
    args = ["--task", "topic", "--input", path, "--out", tmp_path / "link"]
    assert "train.jsonl" in prepare(longlamp, *args, status=2)
    assert json.loads(path.read_text()) == official("topic")


def test_real_rows_are_converted(prepare, shared, tmp_path):
    files = sorted(shared.glob("data/proposals/*.jsonl"))
    said = prepare(longlamp, "--task", "abstract", "--input", *files, "--out", tmp_path)
    assert "313 rows" in said and "74 rows" in said
    assert "dropped: 2 profile items equal to the response" in said
