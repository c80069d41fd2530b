"""Numbers of which many are rounded to multiples of larger steps, such as prices."""

from typing import NamedTuple

import numpy as np

PSEUDO_ROWS = 0.5  # of each degree of rounding: no number is impossible
LEAST_ODDS = 1_000  # against numbers being multiples of a larger step by chance
LEAST_MULTIPLES = 4  # of a step between the tenth and the ninetieth percentile
LEAST_SURPLUS = 1.2  # multiples of a step, relative to as many as by chance
LARGEST_SHARE = 0.1  # of a single number
MOST_REPEATS = 3  # times as many equal numbers as their rounding explains
BINS = 5, 40  # least and largest number of bins of a density
MAX_ROWS = 20_000  # that steps are found in
MANTISSAS = 2, 2.5, 5, 10  # of the steps that are tried, times powers of ten


class Heaps(NamedTuple):
    """How often numbers are rounded to which steps.

    Numbers are whole: multiples of the least step. The degree of a number is the largest of several
    steps of which it is a multiple, and each step is a multiple of the one before. The degree is
    independent of everything else. The probability of a number is the share of its degree times the
    mass of its cell, which holds what is nearer to it than to any other number of its degree. Each
    degree has numbers within the bounds, as in the rows that `of` gets.

    Attributes
    ----------
    steps : ndarray of shape (n_degrees,)
        The steps, of which the first is 1.
    shares : ndarray of shape (n_degrees,)
        The probability of each degree.

    References
    ----------
    Heitjan & Rubin, "Ignorability and Coarse Data", 1991.
    """

    steps: np.ndarray
    shares: np.ndarray

    @classmethod
    def of(cls, numbers, weight) -> "Heaps | None":
        """Return the heaps of whole numbers with weights, None if there are none.

        A step is added if the likelihood rises by more than it would by chance. If one number is
        frequent on its own, there are no heaps, which would take probability from it.
        """
        some = np.flatnonzero(numbers)  # zero is a multiple of all steps
        if len(some) < 2:
            return None
        some = some[:: -(-len(some) // MAX_ROWS)]
        numbers, weight = numbers[some], weight[some]
        low, high = np.quantile(numbers, [0.1, 0.9])
        largest = (high - low) / LEAST_MULTIPLES
        powers = 10.0 ** np.arange(max(np.log10(max(largest, 1.0)), 0) + 1)
        tried = np.unique(np.outer(powers, MANTISSAS))
        tried = tried[(tried <= largest) & (tried == np.rint(tried))]
        least_gain = np.log(LEAST_ODDS * max(len(tried), 1))
        best, best_gain = NO_HEAPS, 0.0
        while len(tried):
            heaps = [cls._with_step(best.steps, step, numbers, weight) for step in tried]
            gains = [-np.inf if each is None else each._gain(numbers, weight) for each in heaps]
            k = int(np.argmax(gains))
            if gains[k] < best_gain + least_gain:
                break
            best, best_gain = heaps[k], gains[k]
        most = np.unique(numbers, return_counts=True)[1].max() / len(numbers)
        return best if len(best.steps) > 1 and most <= LARGEST_SHARE else None

    @classmethod
    def _with_step(cls, steps, step, numbers, weight):
        """Return heaps with one more step, None if it neither divides nor is a multiple of another.

        Nor may it have fewer multiples than by chance, as where most numbers are less than it.
        """
        steps = np.sort(np.append(steps, step))
        if (np.diff(steps) == 0).any() or np.mod(steps[1:], steps[:-1]).any():
            return None
        heaps = cls(steps, np.ones(len(steps)))
        rows = np.bincount(heaps.degree(numbers), weight, len(steps)) + PSEUDO_ROWS
        multiples = np.cumsum(rows[::-1])[::-1]
        if (multiples[1:] * steps[1:] < LEAST_SURPLUS * multiples[:-1] * steps[:-1]).any():
            return None
        return heaps._replace(shares=rows / rows.sum())

    @property
    def _by_chance(self):
        """The probability of each degree among numbers that are rounded to 1 only."""
        return 1 / self.steps - np.append(1 / self.steps[1:], 0.0)

    @property
    def usual_steps(self):
        """The larger steps whose degree is more frequent than by chance."""
        return self.steps[1:][(self.shares > self._by_chance)[1:]]

    def _gain(self, numbers, weight):
        """Return the gain in log-likelihood over numbers that are rounded to 1 only."""
        rows = np.bincount(self.degree(numbers), weight, len(self.steps))
        return rows @ np.log(self.shares / self._by_chance)

    def repeats(self, numbers):
        """Return how often two of the numbers are equal, relative to what the steps explain."""
        numbers = numbers[numbers != 0]
        n, counts = len(numbers), np.unique(numbers, return_counts=True)[1]
        n_bins = int(np.clip(np.sqrt(n), *BINS))
        ends, largest = np.quantile(numbers, np.linspace(0, 1, n_bins + 1)), self.steps[-1]
        ends = largest * np.unique([*np.floor(ends / largest), np.floor(ends[-1] / largest) + 1])
        density = np.histogram(numbers, ends)[0] / n / np.diff(ends)
        gap = self.steps / (1 - np.append(self.steps[:-1] / self.steps[1:], 0.0))
        explained = (density**2 * np.diff(ends)).sum() * (self.shares**2 * gap).sum()
        return (counts * (counts - 1)).sum() / (n * (n - 1)) / explained

    def degree(self, numbers):
        """Return the degree of each number."""
        return sum((np.mod(numbers, step) == 0).astype(int) for step in self.steps[1:])

    def log_share(self, numbers):
        """Return the log-probability of the degree of each number."""
        return np.log(self.shares)[self.degree(numbers)]

    def cells(self, numbers, low, high):
        """Return the ends of the cells of numbers; the outermost ones end at infinite bounds.

        Parameters
        ----------
        numbers : ndarray of shape (n,)
            Whole numbers.
        low, high : float
            The least and the largest number that is possible, or infinite.
        """
        degree = self.degree(numbers)
        before, after = (self._next(numbers, degree, sign) for sign in (-1, 1))
        below = np.where(before < low, -np.inf, (before + numbers) / 2)
        return below, np.where(after > high, np.inf, (numbers + after) / 2)

    def _is_rounder(self, numbers, degree):
        """Return which numbers are of a larger degree, if they are of a degree at least."""
        larger = np.append(self.steps[1:], np.nan)[degree]
        with np.errstate(invalid="ignore"):  # of infinite bounds
            return np.mod(numbers, larger) == 0

    def _next(self, numbers, degree, sign):
        """Return the next number of the same degree, above or below."""
        step = sign * self.steps[degree]
        return numbers + step * np.where(self._is_rounder(numbers + step, degree), 2, 1)

    def ends_below(self, x, low, high):
        """Return where the cells end that the numbers up to x have, of each degree.

        Parameters
        ----------
        x : ndarray of any shape
            Numbers.
        low, high : float
            The least and the largest number that is possible, or infinite.

        Returns
        -------
        ends : ndarray of shape (n_degrees, *x.shape)
            -inf where no number of the degree is up to x, inf where all are.
        """
        ends = []
        for k, step in enumerate(self.steps):
            degree = np.full(x.shape, k)
            last = step * np.floor(x / step)
            last = np.where(self._is_rounder(last, degree), last - step, last)
            following = self._next(last, degree, 1)
            end = np.where(following > high, np.inf, (last + following) / 2)
            ends.append(np.where(last < low, -np.inf, end))
        return np.stack(ends)

    def drawn(self, x, low, high, random_state):
        """Return whole numbers nearest to given ones, each of a random degree.

        Parameters
        ----------
        x : ndarray of shape (n,)
            Numbers.
        low, high : float
            The least and the largest number that is possible, or infinite.
        random_state : RandomState
            Draws the degrees.
        """
        degree = random_state.choice(len(self.steps), size=len(x), p=self.shares)
        step = self.steps[degree]
        nearest, first, last = (
            step * rounded(end / step)
            for end, rounded in ((x, np.rint), (low, np.ceil), (high, np.floor))
        )
        nearest, first, last = (
            number + step * np.where(self._is_rounder(number, degree), sign, 0)
            for number, sign in ((nearest, np.where(x < nearest, -1, 1)), (first, 1), (last, -1))
        )
        return np.clip(nearest, first, last)


NO_HEAPS = Heaps(np.ones(1), np.ones(1))
