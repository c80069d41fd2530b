"""Graphs of molecules, with atoms in breadth-first order: from SMILES and back, by RDKit."""

import reprlib

import numpy as np
from scipy.sparse.csgraph import breadth_first_order

from ..columns.optional import optional

N_ORDERS_OF_BONDS = 4  # none, single, double, triple


def chemistry():
    """Return RDKit's module of molecules, or raise an error that says how to install it."""
    return optional("rdkit.Chem", "MoleculeDensity needs RDKit", "rdkit")


def read_graphs(X, atom_types=None):
    """Return the graph of each SMILES, see `graph_of`, without stereochemistry.

    Errors name the row and the reason, such as an atom that is not among those in ``atom_types``.
    """
    chem = chemistry()
    if isinstance(X, str):
        raise ValueError(f"X is a single text; give a list of SMILES: [{X!r}].")
    values = np.asarray(X, dtype=object)
    if values.shape not in ((values.size,), (values.size, 1)) or not values.size:
        given = f"has shape {values.shape}" if values.ndim else f"is {reprlib.repr(X)}"
        raise ValueError(
            f"X {given}; give a list, an array or one column of SMILES, with one row at least."
        )
    graphs = []
    with chem.rdBase.BlockLogs():
        for row, text in enumerate(values.ravel().tolist()):
            if not isinstance(text, str):
                raise ValueError(f"Row {row} of X is {text!r}; it must be a SMILES, such as 'CCO'.")
            molecule, named = chem.MolFromSmiles(text), f"Row {row} of X, {text!r},"
            if molecule is None or not molecule.GetNumAtoms():
                raise ValueError(f"{named} is no molecule that RDKit can read: {problem_of(text)}.")
            canonical = chem.MolToSmiles(molecule, isomericSmiles=False)
            if "." in canonical:
                raise ValueError(
                    f"{named} has several fragments; give each as a row of its own, or leave salts "
                    "out."
                )
            atoms, bonds = graph_of(chem.MolFromSmiles(canonical))
            if smiles_of(atoms, bonds) != canonical:
                raise ValueError(
                    f"{named} has atoms or bonds that its graph cannot represent: radicals, "
                    "isotopes, bonds to metals or explicit hydrogen."
                )
            unknown = [] if atom_types is None else [a for a in atoms if a not in atom_types]
            for symbol, charge in unknown:
                of_charge = f" of charge {charge:+d}" if charge else ""
                known = ", ".join(sorted({symbol for symbol, _ in atom_types}))
                raise ValueError(
                    f"{named} has an atom {symbol}{of_charge}, which no molecule of fit has; those "
                    f"have {known}."
                )
            graphs.append((atoms, bonds))
    return graphs


def problem_of(text):
    """Return why RDKit reads no molecule from a SMILES."""
    chem = chemistry()
    molecule = chem.MolFromSmiles(text, sanitize=False)
    if molecule is None:
        return "its syntax is wrong"
    problems = chem.DetectChemistryProblems(molecule)
    return problems[0].Message() if problems else "it has no atoms"


def graph_of(molecule):
    """Return symbol and charge of the atoms, and the orders of bonds ``(n, n)`` without aromatic.

    The order of the atoms is breadth-first, from the first one.
    """
    chem = chemistry()
    chem.Kekulize(molecule, clearAromaticFlags=True)
    bonds = np.minimum(chem.GetAdjacencyMatrix(molecule, useBO=True), N_ORDERS_OF_BONDS - 1)
    order = breadth_first_order(bonds, 0, return_predecessors=False)
    atoms = [molecule.GetAtomWithIdx(int(i)) for i in order]
    names = [(atom.GetSymbol(), atom.GetFormalCharge()) for atom in atoms]
    return names, bonds[np.ix_(order, order)].astype(np.uint8)


def smiles_of(atoms, bonds):
    """Return the canonical SMILES of a graph, or None if RDKit refuses the molecule."""
    chem = chemistry()
    molecule = chem.RWMol()
    for symbol, charge in atoms:
        atom = chem.Atom(symbol)
        atom.SetFormalCharge(charge)
        molecule.AddAtom(atom)
    for i, j in np.argwhere(np.tril(bonds)):
        molecule.AddBond(int(i), int(j), chem.BondType.values[bonds[i, j]])
    with chem.rdBase.BlockLogs():
        try:
            chem.SanitizeMol(molecule)
        except chem.MolSanitizeException:
            return None
        return chem.MolToSmiles(molecule)
