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
    """Several molecules to which atoms are added in breadth-first order.

    Parameters
    ----------
    n : int
        Number of molecules.
    size : int
        Largest number of atoms.

    Attributes
    ----------
    n_atoms : int
        Number of atoms so far.
    used : ndarray of shape (n, size)
        Sum of the orders of the bonds of each atom.
    front : ndarray of shape (n,)
        The first atom that the next one may be bonded to: in breadth-first order, the earliest
        neighbour of an atom is not before the one of the atom before.
    """

    def __init__(self, n, size):
        self.n_atoms = 0
        self.used = np.zeros((n, size), dtype=np.uint8)
        self.front = np.zeros(n, dtype=np.int64)
        self.distance = np.full((n, size, size), FAR, dtype=np.uint8)

    def add(self, bonds):
        """Add an atom to each molecule; return the relation of each atom to it ``(n, n_atoms)``.

        Parameters
        ----------
        bonds : ndarray of shape (n, n_atoms)
            Orders of its bonds to the atoms so far.
        """
        i = self.n_atoms
        distance = self.distance[:, : i + 1, : i + 1]
        distance[:, i, i] = 0
        bonded = bonds > 0
        if i:
            through = distance[:, :i, :i].min(axis=1, where=bonded[:, :, None], initial=FAR)
            new = np.minimum(through + 1, FAR)
            distance[:, i, :i] = distance[:, :i, i] = new
            around = new[:, :, None] + new[:, None, :]
            np.minimum(distance[:, :i, :i], around, out=distance[:, :i, :i])
            self.used[:, :i] += bonds.astype(np.uint8)
            self.used[:, i] = bonds.sum(axis=1)
            # Padding has no bonds, and no front.
            self.front = np.where(bonded.any(axis=1), bonded.argmax(axis=1), self.front)
        self.n_atoms = i + 1
        relation = distance[:, i].astype(np.int64) + BONDED + 1
        relation[:, :i] = np.where(bonded, bonds, relation[:, :i])
        relation[:, i] = SELF
        used = np.minimum(self.used[:, : i + 1], MOST_USED)
        in_front = np.arange(i + 1) >= self.front[:, None]
        return (relation * (MOST_USED + 1) + used) * 2 + in_front

    def rings(self, bonds):
        """Return the size of the ring that a bond of the next atom to each would close, or 0.

        Parameters
        ----------
        bonds : ndarray of shape (n, n_atoms)
            Orders of its bonds; those to atoms before a bond are taken to be there.
        """
        i = self.n_atoms
        is_there = (bonds > 0)[:, :, None] & ~np.tri(i, dtype=bool)
        nearest = np.where(is_there, self.distance[:, :i, :i], LARGEST_RING).min(
            axis=1, initial=LARGEST_RING
        )
        return np.where(is_there.any(axis=1), np.minimum(nearest + 2, LARGEST_RING), 0)


def history(bonds):
    """Return the inputs of a network at each step of growing whole molecules.

    Parameters
    ----------
    bonds : ndarray of shape (n, size, size)
        Lower triangles with the orders of bonds.

    Returns
    -------
    relations : ndarray of shape (n, size, size)
        For each atom, the relations of the atoms up to it.
    rings : ndarray of shape (n, size, size)
        The sizes of rings that bonds would close.
    front : ndarray of shape (n, size)
        The first atom that each atom may be bonded to.
    """
    n, size, _ = bonds.shape
    growth = Growth(n, size)
    relations, rings = np.zeros((2, n, size, size), dtype=np.uint8)
    front = np.zeros((n, size), dtype=np.int16)
    for i in range(size):
        front[:, i] = growth.front
        rings[:, i, :i] = growth.rings(bonds[:, i, :i])
        relations[:, i, : i + 1] = growth.add(bonds[:, i, :i])
    return relations, rings, front
