"""What the score of a row usually is, given which of its values are missing or very frequent."""

from typing import NamedTuple

import numpy as np

from ..calibration.tails import weighted_quantiles

FREQUENT, SPIKE = 0.05, 20  # least share of such a value, and least ratio to the median value's
LEAST_SHARE, LEAST_ROWS = 0.02, 20  # of the rows in a state that is not odd by itself
N_ROUNDS, SMALL = 20, 0.01  # of the median polish, and changes in its last one
CONSTANT, TINY = 0.1, 1e-3  # median distance of a state that tells of no spread, and least one
LEAST_VARYING = 0.8  # share of the rows in other states
OTHER, MISSING, FIRST = range(3)  # states of a variable; the frequent values follow


class UsualScores(NamedTuple):
    """How scores differ between rows whose variables are in different states.

    A row that lacks a value has no term for it in its score, and an amount that is often 0 has a
    large probability there, but small ones elsewhere. Such rows differ by many nats, and none of
    them is odd. The usual score is a sum of effects of the variables' states, by Tukey's median
    polish, and so is the logarithm of the usual distance from it. A rare state has no effect: it
    may be odd. The spread is not learned of a state in which most scores hardly differ, since its
    rows have few categories and no number, and nothing is if these are many rows.

    Attributes
    ----------
    centre : float
        The median of the scores less the effects.
    frequent : list of ndarray
        The frequent values of each variable.
    effects, spreads : list of ndarray
        The effects of its states on the score, in nats, and on the logarithm of the distance:
        other, missing, and each frequent value.
    """

    centre: float
    frequent: list
    effects: list
    spreads: list

    @classmethod
    def fit(cls, variables, values, scores, weight):
        """Learn effects from scores of rows that the density has not seen.

        Parameters
        ----------
        variables : list of Variable
            The variables of the table.
        values : ndarray of shape (n, n_variables)
            Their values.
        scores : ndarray of shape (n,)
            Log-densities.
        weight : ndarray of shape (n,)
            Weights of the rows.
        """
        is_finite = np.isfinite(scores)
        scores, weight, values = scores[is_finite], weight[is_finite], values[is_finite]
        frequent = [
            frequent_values(column, weight) if variable.has_number else np.empty(0)
            for variable, column in zip(variables, values.T, strict=True)
        ]
        enough = max(LEAST_SHARE * len(scores), LEAST_ROWS)
        groups = []  # the rows in each state that is not rare, of variables with several
        for j, column in enumerate(values.T):
            states = states_of(column, frequent[j])
            usual = np.flatnonzero(np.bincount(states, minlength=1) >= enough)
            if len(usual) > 1:
                groups += [(j, state, states == state) for state in usual]
        zeros = [np.zeros(FIRST + len(each)) for each in frequent]
        if not groups:
            return cls(0.0, frequent, zeros, zeros)
        centre, effects, rest = polished(scores, weight, groups, zeros)
        distance = np.abs(rest)
        varies = np.ones(len(scores), dtype=bool)
        for *_, rows in groups:
            if weighted_quantiles(distance[rows], weight[rows], 0.5) < CONSTANT:
                varies &= ~rows
        if varies.mean() < LEAST_VARYING:
            return cls(0.0, frequent, zeros, zeros)
        of_varying = [(j, k, rows[varies]) for j, k, rows in groups if rows[varies].any()]
        logs = np.log(np.maximum(distance, TINY))[varies]
        _, spreads, _ = polished(logs, weight[varies], of_varying, zeros)
        return cls(centre, frequent, effects, spreads)

    def relative(self, scores, values):
        """Return scores of rows of variables as if all were in the same state."""
        effect, spread = np.zeros((2, len(values)))
        for j, column in enumerate(values.T):
            if self.effects[j].any() or self.spreads[j].any():
                states = states_of(column, self.frequent[j])
                effect += self.effects[j][states]
                spread += self.spreads[j][states]
        return self.centre + (scores - effect - self.centre) / np.exp(spread)


def polished(scores, weight, groups, zeros):
    """Return the median of scores, effects of groups of rows, and what is left of the scores.

    The effects begin at zeros, which have their shapes.
    """
    centre = float(weighted_quantiles(scores, weight, 0.5))
    rest, effects = scores - centre, [each.copy() for each in zeros]
    for _ in range(N_ROUNDS):
        changes = []
        for j, state, rows in groups:
            changes.append(weighted_quantiles(rest[rows], weight[rows], 0.5))
            rest[rows] -= changes[-1]
            effects[j][state] += changes[-1]
        if np.abs(changes).max(initial=0.0) < SMALL:
            break
    return centre, effects, rest


def frequent_values(column, weight):
    """Return the values that are far more frequent than others, such as an amount of 0."""
    is_known = ~np.isnan(column)
    found, place = np.unique(column[is_known], return_inverse=True)
    counts = np.bincount(place, weight[is_known], minlength=len(found))
    if not len(found):
        return found
    return found[counts >= max(FREQUENT * weight.sum(), SPIKE * np.median(counts))]


def states_of(column, frequent):
    """Return the state of each value of a variable."""
    states = np.where(np.isnan(column), MISSING, OTHER)
    for i, value in enumerate(frequent):
        states[column == value] = FIRST + i
    return states
