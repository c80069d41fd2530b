"""Molecules that grow atom by atom, and the inputs of a network at each step."""

import numpy as np

FAR = 8  # bonds between two atoms, or more
MOST_USED = 6  # sum of the orders of an atom's bonds, or more
LARGEST_RING = 9  # atoms, or more
SELF, BONDED = 0, 1  # classes of distance: itself, bonded by order 1 to 3, 2 bonds, ..., FAR bonds
N_DISTANCES = BONDED + 2 + FAR
START = N_DISTANCES * (MOST_USED + 1) * 2  # the relation to the token before the first atom
N_RELATIONS = START + 1


class Growth:
    """Several molecules of at most ``size`` atoms, which are added in breadth-first order.

    Attributes
    ----------
    used : ndarray of shape (n, size)
        Sum of the orders of the bonds of each atom.
    front : ndarray of shape (n,)
        The first atom that the next one may be bonded to: in breadth-first order, the earliest
        neighbour of an atom is not before the one of the atom before.
    """

    def __init__(self, n, size):
        self.used = np.zeros((n, size), dtype=np.int64)
        self.front = np.zeros(n, dtype=np.int64)
        self.distance = np.full((n, size, size), FAR, dtype=np.uint8)

    def add(self, bonds):
        """Add an atom to each, with bonds of orders ``(n, i)``; return relations ``(n, i + 1)``.

        The relation of an atom, also of the new one, to the new one tells their distance or the
        order of their bond, the sum of the orders of the bonds of the atom, and whether the next
        atom may be bonded to it.
        """
        i = bonds.shape[1]
        distance = self.distance[:, : i + 1, : i + 1]
        distance[:, i, i] = 0
        bonded = bonds > 0
        if i:
            through = distance[:, :i, :i].min(axis=1, where=bonded[:, :, None], initial=FAR)
            new = np.minimum(through + 1, FAR)
            distance[:, i, :i] = distance[:, :i, i] = new
            around = new[:, :, None] + new[:, None, :]
            np.minimum(distance[:, :i, :i], around, out=distance[:, :i, :i])
            self.used[:, :i] += bonds
            self.used[:, i] = bonds.sum(axis=1)
            # Padding has no bonds, and no front.
            self.front = np.where(bonded.any(axis=1), bonded.argmax(axis=1), self.front)
        relation = distance[:, i].astype(np.int64) + BONDED + 1
        relation[:, :i] = np.where(bonded, bonds, relation[:, :i])
        relation[:, i] = SELF
        used = np.minimum(self.used[:, : i + 1], MOST_USED)
        in_front = np.arange(i + 1) >= self.front[:, None]
        return (relation * (MOST_USED + 1) + used) * 2 + in_front

    def ring(self, bonds):
        """Return the size of the ring that the next bond of the next atom would close, or 0.

        The atom has bonds ``(n, k)`` with the first k atoms; its next one is with atom k.
        """
        k = bonds.shape[1]
        bonded = bonds > 0
        nearest = self.distance[:, :k, k].min(axis=1, where=bonded, initial=LARGEST_RING)
        return np.where(bonded.any(axis=1), np.minimum(nearest + 2, LARGEST_RING), 0)


def history(bonds):
    """Return the inputs of a network at each step of growing molecules with these bonds.

    They are the relations of earlier atoms to each, and the sizes of rings that bonds would close,
    of shape ``(n, size, size)`` like the bonds.
    """
    growth = Growth(*bonds.shape[:2])
    relations, rings = np.zeros((2, *bonds.shape), dtype=np.uint8)
    for i in range(bonds.shape[1]):
        for k in range(i):
            rings[:, i, k] = growth.ring(bonds[:, i, :k])
        relations[:, i, : i + 1] = growth.add(bonds[:, i, :i])
    return relations, rings
