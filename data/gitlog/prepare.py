"""Commits of local git repositories as rows: the author is the user.

    python data/gitlog/prepare.py PATH [PATH ...]        writes train, val and test.jsonl beside this file

query = subject line and changed paths, response = body, profile = the author's earlier commits, oldest first.
Merges, reverts, bots, trailers (Signed-off-by: ...) and commits without a body are dropped and counted. Names
become keyed hashes; the key stays in the file `key` beside the rows, on this machine.
"""

import argparse
import hashlib
import hmac
import json
import os
import re
import secrets
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

FORMAT = "%x00%aE%x1f%aN%x1f%P%x1f%s%x1f%b%x1f"  # NUL starts a commit; the changed paths follow its last field
BOT = re.compile(r"\[bot\]|\bbot\b|dependabot|renovate|github-actions|weblate", re.I)
TRAILER = re.compile(r"^\s*([A-Za-z-]+-by|cc|fixes|closes|link|bug|change-id|message-id|reviewed-on|git-svn-id): "
                     r"|^\s*\(cherry picked from", re.I)  # fmt: skip


def read_log(path):
    """Commits of a repository, oldest first: (email, name, parents, subject, body, [changed paths])."""
    flags = ["--reverse", "--use-mailmap", "--no-renames", "--name-only", f"--format={FORMAT}"]
    command = ["git", "-C", str(path), "log", *flags]
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        sys.exit("error: git is not installed")
    out, error = process.communicate()
    if process.returncode:
        print(f"error: {path}: {error.decode(errors='replace').splitlines()[0]}", file=sys.stderr)
        sys.exit(2)
    for commit in out.decode("utf-8", "replace").split("\0")[1:]:
        fields = commit.split("\x1f")
        if len(fields) == 6:  # else: the message itself holds a separator
            yield *fields[:5], fields[5].split("\n")


def clean_body(body):
    """The body without trailers and the lines that tools write."""
    return "\n".join(line.rstrip() for line in body.splitlines() if not TRAILER.match(line)).strip()


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


def read_key(folder):
    """The secret of this machine's name hashes, made on first use, readable by its owner only."""
    path = folder / "key"
    if not path.exists():
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as f:
            f.write(secrets.token_hex(32))
    return path.read_text().encode()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repositories", nargs="+", type=Path, metavar="PATH", help="a git repository")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent,
                        help="folder to write to (default: beside this file)")  # fmt: skip
    parser.add_argument("--temporal", action="store_true",
                        help="split by time: each author's last commits are held out (default: by author)")  # fmt: skip
    parser.add_argument("--names", action="store_true", help="keep authors' names instead of hashes")
    parser.add_argument("--max-chars", type=int, default=600, help="drop longer bodies (default 600 characters)")
    parser.add_argument("--profile", type=int, default=20, help="latest commits kept in a profile (default 20)")
    parser.add_argument("--max-rows", type=int, default=40, help="latest commits kept as rows of an author (default 40)")
    args = parser.parse_args()

    args.out.mkdir(parents=True, exist_ok=True)
    key = read_key(args.out)
    dropped, authors = Counter(), defaultdict(list)
    for repository in args.repositories:
        for email, name, parents, subject, body, paths in read_log(repository):
            body = clean_body(body)
            reason = reason_to_drop(email, name, parents, subject, body, args.max_chars)
            if reason:
                dropped[reason] += 1
                continue
            user = name if args.names else hmac.new(key, email.lower().encode(), hashlib.sha256).hexdigest()[:12]
            changed = [path for path in paths if path]
            listed = ", ".join(changed[:3]) + (f" and {len(changed) - 3} more" if len(changed) > 3 else "")
            authors[user].append({"query": f"{subject}\n{listed}".strip(), "response": body})

    for user in [user for user, commits in authors.items() if len(commits) < 3]:
        dropped["author with fewer than 3 commits"] += len(authors.pop(user))
    if len(authors) < (1 if args.temporal else 3):
        print(f"error: {len(authors)} authors with 3 commits or more are left; a split by author needs 3, --temporal 1",
              file=sys.stderr)  # fmt: skip
        sys.exit(2)
    splits = {"train": [], "val": [], "test": []}
    tenth = max(1, len(authors) // 10)
    order = sorted(authors, key=lambda user: hashlib.sha256(user.encode()).digest())
    place = {user: "test" if i < tenth else "val" if i < 2 * tenth else "train" for i, user in enumerate(order)}
    for user, commits in authors.items():
        first = max(1, len(commits) - args.max_rows)  # the first commit has no profile
        dropped["only used as profile"] += first
        last = max(1, (len(commits) - first) // 10)
        for i in range(first, len(commits)):
            by_time = "test" if i >= len(commits) - last else "val" if i >= len(commits) - 2 * last else "train"
            row = {"user": user, "task": "commit", **commits[i], "profile": commits[max(0, i - args.profile) : i]}
            splits[by_time if args.temporal else place[user]].append(row)
    for name, rows in splits.items():
        path = args.out / f"{name}.jsonl"
        path.unlink(missing_ok=True)  # no rows, no file: a split of an earlier call must not stay
        if rows:
            with open(f"{path}.new", "w", encoding="utf-8") as f:
                f.writelines(json.dumps(row) + "\n" for row in rows)
            os.replace(f"{path}.new", path)
            print(f"wrote {path}: {len(rows)} rows of {len({row['user'] for row in rows})} authors")
    print("dropped:", ", ".join(f"{n} {reason}" for reason, n in dropped.most_common()) or "nothing")


if __name__ == "__main__":
    main()
