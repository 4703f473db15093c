"""Confidence intervals over seeds, and over users and seeds."""

import math

import numpy as np

from perce_mini.scoring import DRAWS, ratio

T95 = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262]  # for 2, 3, ... 10 values


def t95(n):
    """Student's t for the 95 % interval of a mean of n >= 2 values.

    It is approximate for n > 10, within 1 %.
    """
    return T95[n - 2] if n <= 10 else 1.96 + 2.5 / (n - 1)


def interval(values):
    """Return (mean, low, high): the mean of one value per seed and its 95 % t-interval.

    Two values say little about their spread. For one or two values, low and high are the lowest and
    the highest value.
    """
    n, mean = len(values), sum(values) / len(values)
    if n < 3:
        return mean, min(values), max(values)
    half = t95(n) * float(np.std(values, ddof=1)) / math.sqrt(n)
    return mean, mean - half, mean + half


def paired(users, tables, references):
    """Compare runs with reference runs: [[difference, low, high], ...], one per metric.

    users (examples,): the user of each example. tables, references: one array per seed, the tallies
    (examples, metrics, 2) of scoring.tally_table. [low, high] is a paired bootstrap 95 % interval:

        repeat 10,000 times:
            draw n of the n users and m of the m seeds with replacement
            add up the tallies of these users and seeds, for the runs and for the reference runs
            difference = metric of the runs - metric of the reference runs
        [low, high] contains the middle 95 % of the differences

    All three are NaN if a metric has nothing to count; low and high are NaN for a single user.
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
    observed = ratio(sum(tables).sum(0)) - ratio(sum(references).sum(0))
    results = []
    for i, change in enumerate(observed.tolist()):
        low = high = np.nan
        if len(names) > 1 and not np.isnan(change):
            low, high = np.nanquantile(changes[:, i], [0.025, 0.975]).tolist()
        results.append([change, low, high])
    return results


def draw(n, rng):
    """Draw n of n items with replacement, DRAWS times.

    Returns how often each was drawn, divided by n: (DRAWS, n).
    """
    return rng.multinomial(n, np.full(n, 1 / n), size=DRAWS) / n


def widen(shares):
    """Move the seeds' shares further from 1/n, so that the interval becomes as wide as Student's
    t-interval.

    Without this, a 95 % interval from three seeds contains the true mean in only 75 % of cases.
    """
    n = shares.shape[1]
    factor = t95(n) / 1.96 * math.sqrt(n / (n - 1)) if n > 1 else 1.0
    return 1 / n + factor * (shares - 1 / n)
