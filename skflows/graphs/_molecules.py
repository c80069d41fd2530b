"""Molecules as atoms in breadth-first order: from SMILES and back, by RDKit."""

from collections import deque

import numpy as np

from ..columns.arrays import is_missing

REMEDY = "MoleculeDensity needs RDKit: pip install rdkit."
END, PADDING = -1, -2  # in place of atoms' types
N_ORDERS_OF_BONDS = 4  # none, single, double, triple


def chemistry():
    """Return RDKit's module of molecules, or raise an error that says how to install it."""
    try:
        from rdkit import Chem
    except ImportError as error:
        raise ImportError(REMEDY) from error
    return Chem


def texts(X):
    """Return SMILES in a list, an array or a column as a list of texts."""
    if isinstance(X, str):
        raise ValueError(f"X is a single text; give a list of SMILES: [{X!r}].")
    values = np.asarray(X.to_numpy() if hasattr(X, "to_numpy") else X, dtype=object)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1 or not len(values):
        raise ValueError(
            f"X has shape {values.shape}; give a list, an array or one column of SMILES, with one "
            "row at least."
        )
    for row, value in enumerate(values):
        if not isinstance(value, str) or is_missing(value):
            raise ValueError(f"Row {row} of X is {value!r}; it must be a SMILES, such as 'CCO'.")
    return values.tolist()


def read_smiles(X):
    """Return the molecules of SMILES, with atoms in canonical order and without aromatic bonds.

    Stereochemistry is left out. Errors name the row and the reason.
    """
    chem = chemistry()
    molecules = []
    with chem.rdBase.BlockLogs():
        for row, text in enumerate(texts(X)):
            molecule = chem.MolFromSmiles(text)
            if molecule is None or not molecule.GetNumAtoms():
                raise ValueError(f"Row {row} of X, {text!r}, is no SMILES that RDKit can read.")
            canonical = chem.MolToSmiles(molecule, isomericSmiles=False)
            if "." in canonical:
                raise ValueError(
                    f"Row {row} of X, {text!r}, has several fragments; give each as a row of its "
                    "own, or leave salts out."
                )
            molecule = chem.MolFromSmiles(canonical)
            chem.Kekulize(molecule, clearAromaticFlags=True)
            if rebuilt(*atoms_and_bonds(molecule, range(molecule.GetNumAtoms()))) != canonical:
                raise ValueError(
                    f"Row {row} of X, {text!r}, has atoms or bonds that its graph does not tell: "
                    "radicals, isotopes, bonds to metals or explicit hydrogen."
                )
            molecules.append(molecule)
    return molecules


def breadth_first(molecule, seed=None):
    """Return the numbers of atoms in breadth-first order: canonical, or a random one."""
    n = molecule.GetNumAtoms()
    rank = np.arange(n) if seed is None else np.random.RandomState(seed).permutation(n)
    first = int(np.argmin(rank))
    order, seen, queue = [], {first}, deque([first])
    while queue:
        order.append(atom := queue.popleft())
        neighbours = [a.GetIdx() for a in molecule.GetAtomWithIdx(atom).GetNeighbors()]
        new = sorted((a for a in neighbours if a not in seen), key=rank.__getitem__)
        seen.update(new)
        queue.extend(new)
    return order


def atoms_and_bonds(molecule, order):
    """Return symbol and charge of atoms in an order, and the orders of bonds ``(n, n)``."""
    atoms = [molecule.GetAtomWithIdx(int(i)) for i in order]
    place = {int(atom): i for i, atom in enumerate(order)}
    bonds = np.zeros((len(atoms), len(atoms)), dtype=np.uint8)
    for bond in molecule.GetBonds():
        i, j = place[bond.GetBeginAtomIdx()], place[bond.GetEndAtomIdx()]
        bonds[i, j] = bonds[j, i] = min(round(bond.GetBondTypeAsDouble()), N_ORDERS_OF_BONDS - 1)
    return [(atom.GetSymbol(), atom.GetFormalCharge()) for atom in atoms], bonds


def rebuilt(atoms, bonds):
    """Return the canonical SMILES of atoms and bonds, or None if RDKit finds no such molecule."""
    chem = chemistry()
    types = [None, chem.BondType.SINGLE, chem.BondType.DOUBLE, chem.BondType.TRIPLE]
    molecule = chem.RWMol()
    for symbol, charge in atoms:
        atom = chem.Atom(symbol)
        atom.SetFormalCharge(charge)
        molecule.AddAtom(atom)
    for i, j in np.argwhere(np.tril(bonds)):
        molecule.AddBond(int(i), int(j), types[bonds[i, j]])
    with chem.rdBase.BlockLogs():
        try:
            chem.SanitizeMol(molecule)
        except chem.MolSanitizeException:
            return None
        return chem.MolToSmiles(molecule)


def table_of(molecules, orders, atom_types):
    """Return types of atoms ``(n, size)`` and bonds ``(n, size, size)`` of molecules in orders.

    Parameters
    ----------
    molecules : list of rdkit.Chem.Mol
        What `read_smiles` returned.
    orders : list of list of int
        The order of the atoms of each.
    atom_types : list of tuple
        Symbol and charge of each type of atom.
    """
    size = max(map(len, orders))
    types = np.full((len(orders), size + 1), PADDING, dtype=np.int16)
    bonds = np.zeros((len(orders), size, size), dtype=np.uint8)
    number = {atom: i for i, atom in enumerate(atom_types)}
    for row, (molecule, order) in enumerate(zip(molecules, orders, strict=True)):
        atoms, of_atoms = atoms_and_bonds(molecule, order)
        if unknown := [atom for atom in atoms if atom not in number]:
            symbol, charge = unknown[0]
            of_charge = f" of charge {charge:+d}" if charge else ""
            known = ", ".join(sorted({symbol for symbol, _ in atom_types}))
            raise ValueError(
                f"Row {row} of X has an atom {symbol}{of_charge}, which no molecule of fit has; "
                f"those have {known}."
            )
        n = len(order)
        types[row, :n] = [number[atom] for atom in atoms]
        types[row, n] = END
        bonds[row, :n, :n] = np.tril(of_atoms)
    return types, bonds
