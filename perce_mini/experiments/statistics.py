"""How sure a result is when the runs were repeated with several seeds."""

import math

import numpy as np

from perce_mini.scoring import DRAWS, ratio

T95 = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262]  # of 2, 3, ... 10 values


def t95(n):
    """Student's t for the 95 % interval of a mean of n >= 2 values (within 1 % above ten)."""
    return T95[n - 2] if n <= 10 else 1.96 + 2.5 / (n - 1)


def interval(values):
    """(mean, low, high): the 95 % interval of the mean of values, one per seed, by Student's t.

    Two values say little about their spread, so low and high are then these two.
    """
    n, mean = len(values), sum(values) / len(values)
    if n < 3:
        return mean, min(values), max(values)
    half = t95(n) * float(np.std(values, ddof=1)) / math.sqrt(n)
    return mean, mean - half, mean + half


def paired(users, tables, references):
    """How runs differ from reference runs: [[difference, low, high], ...], one per metric.

    users (examples,): whose example it is. tables, references: for each seed the tallies (examples,
    metrics, 2) of scoring.tally_table. [low, high] is a paired bootstrap 95 % interval:

        for each of 10,000 draws:
            draw users and seeds with replacement, as many as there are
            add up the tallies of the drawn users in the drawn seeds, for both runs
            keep the run's metric - the reference's metric
        the interval holds the middle 95 % of these differences

    NaN stands for a metric that counts nothing, and for low and high if there is a single user.
    """
    names, index = np.unique(users, return_inverse=True)
    rng = np.random.default_rng(0)
    user_shares = draw(len(names), rng)
    seed_shares = widen(draw(len(tables), rng))

    def metrics_of_draws(seeds):
        sums = 0.0
        for k, table in enumerate(seeds):
            per_user = np.zeros((len(names), *table.shape[1:]))
            np.add.at(per_user, index, table)
            of_users = np.tensordot(user_shares, per_user, 1)  # (DRAWS, metrics, 2)
            sums = sums + seed_shares[:, k, None, None] * of_users
        return ratio(sums)

    changes = metrics_of_draws(tables) - metrics_of_draws(references)
    middle = ratio(sum(tables).sum(0)) - ratio(sum(references).sum(0))
    results = []
    for i, change in enumerate(middle.tolist()):
        low = high = np.nan
        if len(names) > 1 and not np.isnan(change):
            low, high = np.nanquantile(changes[:, i], [0.025, 0.975]).tolist()
        results.append([change, low, high])
    return results


def draw(n, rng):
    """Draw n of n things with replacement, DRAWS times: each thing's share, (DRAWS, n)."""
    return rng.multinomial(n, np.full(n, 1 / n), size=DRAWS) / n


def widen(shares):
    """Move the shares of a few seeds away from their mean: the interval becomes Student's t's.

    Without this, a 95 % interval from three seeds holds the true mean in 75 % of cases.
    """
    n = shares.shape[1]
    factor = t95(n) / 1.96 * math.sqrt(n / (n - 1)) if n > 1 else 1.0
    return 1 / n + factor * (shares - 1 / n)
