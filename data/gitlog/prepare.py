"""Make rows from the history of local git repositories. Each author is a user.

    python data/gitlog/prepare.py PATH [PATH ...]

This writes train.jsonl, val.jsonl and test.jsonl to the folder --out (default: next to this file).

The query is the subject line and the changed paths of a commit, the response is the body of its
message, and the profile is the author's earlier commits, oldest first. Merges, reverts, commits by
bots, commits without a body and lines like "Signed-off-by: ..." are dropped. Cloned, rebased or
cherry-picked copies of a commit count only once. Users are numbered in the order of their first
commits: the rows contain no names and no addresses, except those that a message mentions.
"""

import hashlib
import os
import re
import subprocess
import sys
from collections import Counter, defaultdict, namedtuple
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # so that this runs from any folder

from data.splits import print_dropped, write_splits
from perce_mini.rows import gives_answer
from perce_mini.runtime import cli
from perce_mini.runtime.errors import UserError, plural
from perce_mini.runtime.files import check_writable

BOT = re.compile(r"\[bot\]|\bbot\b|dependabot|renovate|github-actions|weblate", re.I)
TRAILERS = "[a-z-]+-by|cc|fixes|closes|link|bug|change-id|message-id|reviewed-on|git-svn-id"
TRAILER = re.compile(rf"\s*(({TRAILERS}): |\(cherry picked from)", re.I)  # lines that tools write
PROFILE = 20  # maximum number of commits in a profile (the most recent ones)

# ---------------------------------------------------------------------------- reading a repository

Commit = namedtuple("Commit", "email name written committed parents subject body paths")
# %x00 is a NUL, which no message can contain. The changed paths follow the last NUL.
FORMAT = "--format=%x00" + "%x00".join("%aE %aN %at %ct %P %s %b".split()) + "%x00"

# A repository's git configuration can make git run programs. --no-show-signature keeps git from
# running gpg.program. Without --ignore-submodules=none git would read the index and run
# core.fsmonitor.
FLAGS = """--no-show-signature --ignore-submodules=none --no-renames -O/dev/null --encoding=UTF-8
    --reverse --name-only""".split()
SETTINGS = """-c core.fsmonitor=false -c core.quotePath=false -c mailmap.file=/dev/null
    -c advice.graftFileDeprecated=false""".split()
ENVIRONMENT = {
    "GIT_ALLOW_PROTOCOL": "none",  # a partial clone would fetch missing objects
    "GIT_GRAFT_FILE": "/dev/null",  # grafts and replace refs would change the history
    "GIT_NO_REPLACE_OBJECTS": "1",
    "LC_ALL": "C",
}


def read_log(path):
    """Read the Commits of a repository, oldest first. Raises UserError."""
    command = ["git", "--no-pager", "-C", str(path), *SETTINGS, "log", *FLAGS, FORMAT]
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    env |= ENVIRONMENT  # the user's GIT_DIR and the like could point to another repository
    try:
        done = subprocess.run(command, env=env, capture_output=True)
    except FileNotFoundError:
        raise UserError("git is not installed") from None
    if done.returncode:
        reason = " ".join(done.stderr.decode("utf-8", "replace").split())
        raise UserError(f"{path}: {reason or f'git exited with status {done.returncode}'}")
    fields = done.stdout.decode("utf-8", "replace").split("\0")[1:]
    return [Commit(*fields[i : i + 8]) for i in range(0, len(fields), 8)]


# ---------------------------------------------------------------------------------- commits to rows


def reason_to_drop(commit, body, max_chars):
    if " " in commit.parents:
        return "merges"
    if BOT.search(commit.email) or BOT.search(commit.name):
        return "commits by bots"
    if commit.subject.startswith("Revert ") or body.startswith("This reverts commit"):
        return "reverts"
    if len(body.split()) < 5:
        return "commits with a body under 5 words"
    if len(body) > max_chars:
        return f"commits with a body over {max_chars} characters"


def as_text(commit, body):
    """Convert a commit to a query and a response."""
    paths = [path for path in commit.paths.split("\n") if path]
    more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
    query = f"{commit.subject}\n{', '.join(paths[:3])}{more}"
    return {"query": query.strip(), "response": body}


def read_authors(repositories, max_chars):
    """Return {user: queries and responses, oldest first} and {reason: number of dropped commits}.

    Every e-mail address counts as one user. Raises UserError.
    """
    commits = [commit for repository in repositories for commit in read_log(repository)]
    commits.sort(key=lambda commit: int(commit.committed or 0))
    authors, dropped, seen = defaultdict(list), Counter(), set()
    for commit in commits:
        lines = [line.rstrip() for line in commit.body.splitlines() if not TRAILER.match(line)]
        body = "\n".join(lines).strip()
        content = (commit.email, commit.name, commit.written, commit.subject, body)
        repeated = content in seen
        reason = "repeated commits" if repeated else reason_to_drop(commit, body, max_chars)
        seen.add(content)
        if reason:
            dropped[reason] += 1
        else:
            authors[commit.email.lower()].append(as_text(commit, body))
    users = {f"author {i}": texts for i, texts in enumerate(authors.values(), 1)}
    for user in [user for user, texts in users.items() if len(texts) < 3]:
        dropped["commits by authors with fewer than 3"] += len(users.pop(user))
    return users, dropped


# ---------------------------------------------------------------------------------- rows to splits


def split_by_author(authors):
    """Return {user: split}.

    test and val each get a tenth of the users (at least one), chosen by a hash.
    """
    tenth = max(1, len(authors) // 10)
    order = sorted(authors, key=lambda user: hashlib.sha256(user.encode()).digest())
    return dict(zip(order, ["test"] * tenth + ["val"] * tenth + ["train"] * len(order)))


def split_by_time(n_rows):
    """Split an author's rows.

    The last tenth (at least one row) is test, the tenth before it is val.
    """
    tenth = max(1, n_rows // 10)
    splits = ["train"] * n_rows + ["val"] * tenth + ["test"] * tenth
    return splits[-n_rows:]


def make_splits(authors, temporal, max_rows, dropped):
    """Return {split: rows}. Adds to `dropped` ({reason: number})."""
    splits, split_of = {"train": [], "val": [], "test": []}, split_by_author(authors)
    for user, texts in authors.items():
        first = max(1, len(texts) - max_rows)  # the first text has no profile
        dropped["commits used only in profiles"] += first
        n_rows = len(texts) - first
        chosen = split_by_time(n_rows) if temporal else [split_of[user]] * n_rows
        for i, split in enumerate(chosen, first):
            earlier = texts[max(0, i - PROFILE) : i]
            profile = [item for item in earlier if not gives_answer(item, texts[i])]
            dropped["profile items equal to the response"] += len(earlier) - len(profile)
            splits[split].append({"user": user, "task": "commit", **texts[i], "profile": profile})
    return splits


def main():
    p = cli.Parser(description=__doc__)
    add = p.add_argument
    add("repositories", nargs="+", type=Path, metavar="PATH", help="a git repository")
    help = "output folder (default: the folder of this script)"
    add("--out", type=Path, default=Path(__file__).parent, help=help)
    help = "hold out each author's last commits instead of some authors"
    add("--temporal", action="store_true", help=help)
    add("--max-chars", type=cli.COUNT, default=600, help="drop commits with longer bodies")
    help = "maximum number of rows per author (the most recent commits)"
    add("--max-rows", type=cli.COUNT, default=40, help=help)
    args = p.parse_args()
    check_writable(args.out / "train.jsonl")
    authors, dropped = read_authors(args.repositories, args.max_chars)
    splits = make_splits(authors, args.temporal, args.max_rows, dropped)
    if not splits["train"]:
        print_dropped(dict(dropped.most_common()))
        enough = "a split by author needs 3 such authors; --temporal needs one author with 4"
        enough += " commits, and a --max-rows of at least 3"
        few = plural(len(authors), "author")
        raise UserError(f"too few commits: found {few} with 3 or more commits; {enough}")
    write_splits(args.out, splits, dict(dropped.most_common()))


if __name__ == "__main__":
    cli.run(main)
