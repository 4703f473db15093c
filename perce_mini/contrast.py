"""Put a stranger's profile into the plain view, which otherwise has no profile.

A profile shows two things: how this user writes, and what such texts look like in general. If the
plain view has no profile, PIR measures both. If it has a stranger's profile, PIR measures only what
is specific to the user.
"""

import random
import sys

CONTRASTS = ["none", "stranger"]


def add_strangers(rows):
    """Put a stranger's profile into the plain view of every row that has a profile.

    The stranger is another user of the same task who has a profile, drawn with a fixed seed.
    """
    others = strangers(rows)
    for row, other in zip(rows, others):
        if other and row["profile"]:
            row.plain_profile = other["profile"]
    if alone := others.count(None):
        print(f"note: found no stranger for {alone} of {len(rows)} rows", file=sys.stderr)


def strangers(rows):
    """For each row, pick a random row of the same task from another user who has a profile.

    The result is None for a row without such a user.
    """
    rng = random.Random(0)
    by_task = {row["task"]: [] for row in rows}
    for row in rows:
        if row["profile"]:
            by_task[row["task"]].append(row)
    return [draw_stranger(row, by_task[row["task"]], rng) for row in rows]


def draw_stranger(row, candidates, rng):
    for _ in range(100 if candidates else 0):
        other = rng.choice(candidates)
        if other["user"] != row["user"]:
            return other
    others = [other for other in candidates if other["user"] != row["user"]]
    return rng.choice(others) if others else None  # needed if one user wrote almost all the texts
