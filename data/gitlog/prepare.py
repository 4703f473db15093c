"""Commits of local git repositories as rows: the author is the user.

    python data/gitlog/prepare.py PATH [PATH ...]        writes train, val and test.jsonl beside this file

query = subject line and changed paths, response = body, profile = the author's earlier commits, oldest first.
Merges, reverts, bots, trailers (Signed-off-by: ...) and commits without a body are dropped and counted, and a commit
that stands in two repositories is taken once. Names become keyed hashes; the key stays in the file `key` beside the
rows, on this machine.
"""

import hashlib
import hmac
import os
import re
import secrets
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository, so that this runs from any folder

from data.splits import print_dropped, write_splits
from perce_mini import cli
from perce_mini.errors import UserError
from perce_mini.files import check_writable, replace_file

BOT = re.compile(r"\[bot\]|\bbot\b|dependabot|renovate|github-actions|weblate", re.I)
TRAILER = re.compile(  # lines of a body that tools write
    r"^\s*([A-Za-z-]+-by|cc|fixes|closes|link|bug|change-id|message-id|reviewed-on|git-svn-id): "
    r"|^\s*\(cherry picked from",
    re.I,
)

# --------------------------------------------------------------------------------- reading a repository

# A repository's own settings may name programs, and may change what `git log` says. Here it decides neither.
SETTINGS = {
    "core.attributesFile": "/dev/null",
    "core.fsmonitor": "false",
    "core.hooksPath": "/dev/null",
    "core.quotePath": "false",
    "core.sshCommand": "false",
    "log.showRoot": "true",
    "mailmap.file": "/dev/null",
}
FLAGS = """--no-show-signature --no-ext-diff --no-textconv --diff-merges=off --ignore-submodules=none --no-relative
    --no-renames -O/dev/null --encoding=UTF-8 --reverse --name-only""".split()
# No commit holds a NUL; the changed paths follow the last.
FIELDS = "--format=%x00%aE%x00%aN%x00%P%x00%s%x00%b%x00%H%x00%ct%x00"
# Nothing is fetched (two ways, for old and new versions of git), nobody is asked.
ENVIRONMENT = {"GIT_ALLOW_PROTOCOL": "none", "GIT_NO_LAZY_FETCH": "1", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}


def read_log(path):
    """Commits of a repository: [email, name, parents, subject, body, hash, time, a line per changed path].

    Raises UserError.
    """
    settings = [word for name, value in SETTINGS.items() for word in ["-c", f"{name}={value}"]]
    command = ["git", "--no-pager", "-C", str(path), *settings, "log", *FLAGS, FIELDS]
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}  # they may lead elsewhere
    try:
        done = subprocess.run(command, env=own | ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True)
    except FileNotFoundError:
        raise UserError("git is not installed; install it and call this again") from None
    if done.returncode:
        raise UserError(f"{path}: {why_it_failed(done)}")
    fields = done.stdout.decode("utf-8", "replace").split("\0")[1:]
    return [fields[i : i + 8] for i in range(0, len(fields), 8)]


def why_it_failed(done):
    lines = [line.strip() for line in done.stderr.decode("utf-8", "replace").splitlines() if line.strip()]
    for line in lines:
        if "--add safe.directory" in line:
            return f"belongs to another user, so git does not read it; if you trust it, call: {line}"
    fatal = [line for line in lines if line.startswith("fatal:")]
    return (fatal or lines or [f"git log ended with status {done.returncode}"])[-1]


# -------------------------------------------------------------------------------------- commits to rows


def reason_to_drop(email, name, parents, subject, body, max_chars):
    if " " in parents.strip():
        return "merges"
    if BOT.search(email) or BOT.search(name):
        return "bots"
    if subject.startswith("Revert ") or body.startswith("This reverts commit"):
        return "reverts"
    if len(body.split()) < 5:
        return "body under 5 words"
    if len(body) > max_chars:
        return f"body over {max_chars} characters"


def read_authors(repositories, key, max_chars):
    """({user: commits as query and response, oldest first}, {reason: how many were dropped}). Raises UserError.

    key: the secret of the hashes that stand for names; None keeps the names.
    """
    authors, dropped, seen = defaultdict(list), Counter(), set()
    commits = [commit for repository in repositories for commit in read_log(repository)]
    commits.sort(key=lambda commit: int(commit[6] or 0))
    for email, name, parents, subject, body, commit, _, paths in commits:
        lines = [line.rstrip() for line in body.splitlines() if not TRAILER.match(line)]
        body = "\n".join(lines).strip()
        again = "in two repositories" if commit in seen else None
        reason = again or reason_to_drop(email, name, parents, subject, body, max_chars)
        seen.add(commit)
        if reason:
            dropped[reason] += 1
            continue
        changed = [path for path in paths.split("\n") if path]
        listed = ", ".join(changed[:3]) + (f" and {len(changed) - 3} more" if len(changed) > 3 else "")
        user = hmac.new(key, email.lower().encode(), hashlib.sha256).hexdigest()[:12] if key else name
        authors[user].append({"query": f"{subject}\n{listed}".strip(), "response": body})
    for user in [user for user, commits in authors.items() if len(commits) < 3]:
        dropped["author with fewer than 3 commits"] += len(authors.pop(user))
    return authors, dropped


def read_key(folder):
    """The secret of this machine's name hashes, made on first use, readable by its owner only. Raises UserError."""
    path = folder / "key"
    if not path.exists():
        replace_file(path, write_key)
    key = path.read_bytes().strip()
    if not re.fullmatch(b"[0-9a-fA-F]{64}", key):
        raise UserError(f"{path}: a key is 64 hexadecimal digits; put the right file back, or remove it for a new key")
    return key


def write_key(path):
    with open(path, "w", opener=lambda name, flags: os.open(name, flags, mode=0o600)) as file:
        file.write(secrets.token_hex(32))


# ------------------------------------------------------------------------------------- rows to splits


def split_by_author(authors):
    """{user: split}: a tenth of the users, at least one, for test and for val; which ones, a hash of them decides."""
    tenth = max(1, len(authors) // 10)
    order = sorted(authors, key=lambda user: hashlib.sha256(user.encode()).digest())
    return {user: "test" if i < tenth else "val" if i < 2 * tenth else "train" for i, user in enumerate(order)}


def split_by_time(n_rows):
    """The split of each of an author's rows: the last tenth, at least one, is test, the tenth before it val."""
    tenth = max(1, n_rows // 10)
    return ["test" if left <= tenth else "val" if left <= 2 * tenth else "train" for left in range(n_rows, 0, -1)]


def make_splits(authors, temporal, n_profile, max_rows):
    """({split: rows}, how many commits are used in profiles only)."""
    splits, only_profile, place = {"train": [], "val": [], "test": []}, 0, split_by_author(authors)
    for user, commits in authors.items():
        first = max(1, len(commits) - max_rows)  # the first commit has no profile
        only_profile += first
        n_rows = len(commits) - first
        chosen = split_by_time(n_rows) if temporal else [place[user]] * n_rows
        for i, split in enumerate(chosen, first):
            profile = commits[max(0, i - n_profile) : i]
            splits[split].append({"user": user, "task": "commit", **commits[i], "profile": profile})
    return splits, only_profile


def main():
    p = cli.Parser(description=__doc__)
    p.add_argument("repositories", nargs="+", type=Path, metavar="PATH", help="a git repository")
    p.add_argument("--out", type=Path, default=Path(__file__).parent, help="where to write (default: beside this file)")
    p.add_argument("--temporal", action="store_true", help="hold out everybody's last commits (default: some authors)")
    p.add_argument("--names", action="store_true", help="keep authors' names instead of hashes")
    p.add_argument("--max-chars", type=cli.COUNT, default=600, help="drop longer bodies, in characters")
    p.add_argument("--profile", type=cli.COUNT_OR_NONE, default=20, help="latest commits kept in a profile")
    p.add_argument("--max-rows", type=cli.COUNT, default=40, help="latest commits kept as rows of an author")
    args = p.parse_args()
    check_writable(args.out / "train.jsonl")
    key = None if args.names else read_key(args.out)
    authors, dropped = read_authors(args.repositories, key, args.max_chars)
    if len(authors) < (1 if args.temporal else 3):
        print_dropped(dict(dropped.most_common()))
        left = f"{len(authors)} authors with 3 commits or more are left"
        raise UserError(f"{left}; a split by author needs 3, --temporal 1")
    splits, dropped["only used as profile"] = make_splits(authors, args.temporal, args.profile, args.max_rows)
    if not splits["train"]:
        print_dropped(dict(dropped.most_common()))
        raise UserError("no commits are left to train on: --temporal needs an author with 4 and --max-rows 3")
    write_splits(args.out, splits, dict(dropped.most_common()))


if __name__ == "__main__":
    cli.run(main)
