"""The classes of rows as one more column of a table's density, which gives the density of each.

Members that were fitted to rows and their classes know the density of a row, whatever its class,
and the probabilities of the classes given the row. By Bayes' rule, these give the density of the
row in each class. Members are asked without the columns that rules tell: how many rows of each
class break a rule is counted, and is part of its density.
"""

import numpy as np
from scipy.special import logsumexp

from ..training.threads import in_one_thread
from ._variables import in_chunks
from ._view import TableView


class ClassColumn:
    """What the rows of a fit say of the classes, which are the last variable of a schema.

    Parameters
    ----------
    schema : Schema
        The variables and rules.
    values : ndarray of shape (n, n_variables)
        The rows.
    weight : ndarray of shape (n,)
        Weight of each row.
    """

    def __init__(self, schema, values, weight):
        self.schema = schema
        n_classes = schema.variables[-1].n_levels
        # Logarithms of how much likelier rows of each class keep or break a rule than all rows.
        self.log_ratios = []
        for broken in schema.rules.broken_functions(schema, values):
            tells = ~np.isnan(broken)
            label, of_rows = values[tells, -1].astype(int), weight[tells]
            count = np.bincount(label, of_rows, n_classes)
            n_broken = np.bincount(label, of_rows * broken[tells], n_classes)
            share = (n_broken.sum() + 1) / (count.sum() + 2)
            # Each class has half an exception more, among half as many rows as have one.
            shares = (n_broken + 0.5) / (count + 0.5 / share)
            self.log_ratios.append((np.log1p(-shares) - np.log1p(-share), np.log(shares / share)))

    @in_one_thread
    def log_densities(self, values, members):
        """Return the log-density of rows in each class, ``(n, n_classes)``.

        Parameters
        ----------
        values : ndarray of shape (n, n_variables)
            The rows.
        members : list of tuple
            Pairs of a member and its weight.
        """
        class_ = values.shape[1] - 1
        nothing = TableView(self.schema, np.full((1, values.shape[1]), np.nan))
        log_shares = [np.log(member.predictive(nothing, class_).levels) for member, _ in members]
        densities = []
        for some in in_chunks(values):
            some = some.copy()
            some[:, class_] = np.nan
            view = TableView(self.schema, some)
            by_member = [
                np.log(weight)
                + view.judged.log_prob(member)[:, None]
                + np.log(member.predictive(view.judged.view, class_).levels)
                - log_share
                for (member, weight), log_share in zip(members, log_shares, strict=True)
            ]
            log_density = logsumexp(by_member, axis=0)
            of_rules = self.schema.rules.broken_functions(self.schema, some)
            for broken, (kept, lost) in zip(of_rules, self.log_ratios, strict=True):
                log_density += np.where(broken[:, None] == 0, kept, 0.0)
                log_density += np.where(broken[:, None] == 1, lost, 0.0)
            densities.append(log_density)
        return np.concatenate(densities)
