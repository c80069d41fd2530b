"""Samples of MoleculeDensity beside a character n-gram, a character LSTM and training molecules.

    python benchmarks/molecules.py --data FILE --out FILE
    python benchmarks/molecules.py --table FILE

The data FILE has a SMILES a line, maybe compressed by gzip: a tenth is held out. The LSTM has the
processor time of the flow. Needs RDKit.
"""

import argparse
import gzip
import json
import time
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from protocol import append, limits_of_processor_time, print_table, read
from rdkit import Chem, DataStructs, rdBase
from rdkit.Chem import BRICS, QED, Crippen, Descriptors, rdFingerprintGenerator, rdMolDescriptors
from rdkit.Chem.Scaffolds import MurckoScaffold
from rdkit.Contrib.SA_Score import sascorer
from scipy import linalg, stats
from torch import nn

from skflows.graphs import MoleculeDensity

LONGEST = 150  # characters of a sample
LEAST = 3  # occurrences of a context, or a shorter one is used
FEWEST = 50  # molecules with the moments of descriptors
N_DIVERSE = 1000  # samples whose distances are compared
HEAVY = {"max_iter": 10_000, "n_iter_no_change": 10_000}  # time ends the training
PROPERTIES = "weight", "logp", "qed", "sa"
START, END = "^", "$"


class NGram:
    """The next character, given those before it, or fewer if these are rare."""

    def __init__(self, order=10):  # as in the MOSES benchmark
        self.order = order  # number of characters with the next one

    def fit(self, smiles, seconds, seed):
        self.counts = defaultdict(Counter)
        for text in smiles:
            text = START * (self.order - 1) + text + END
            for i in range(self.order - 1, len(text)):
                for n in range(self.order):
                    self.counts[text[i - n : i]][text[i]] += 1

    def sample(self, n, seed):
        rng = np.random.default_rng(seed)
        return [self._drawn(rng) for _ in range(n)]

    def _drawn(self, rng):
        text = START * (self.order - 1)
        while text[-1] != END and len(text) < LONGEST:
            contexts = (text[len(text) - k :] for k in range(self.order - 1, -1, -1))
            counts = next(c for c in map(self.counts.__getitem__, contexts) if c.total() >= LEAST)
            values = np.array([*counts.values()])
            text += [*counts][rng.choice(len(values), p=values / values.sum())]
        return text.strip(START + END)


class LSTM(nn.Module):
    """Three layers of 256 units that read SMILES, as long as the flow trains."""

    def fit(self, smiles, seconds, seed):
        started = time.process_time()
        torch.manual_seed(seed)
        self.characters = [START, END, *sorted(set("".join(smiles)))]
        number = {c: i for i, c in enumerate(self.characters)}
        n = len(self.characters)
        self.embedding, self.output = nn.Embedding(n, 64), nn.Linear(256, n)
        self.lstm = nn.LSTM(64, 256, 3, batch_first=True)
        codes = [torch.tensor([number[c] for c in START + text + END]) for text in smiles]
        optimizer = torch.optim.Adam(self.parameters(), 2e-3)
        self.n_iter = 0
        while True:
            for rows in torch.randperm(len(codes)).split(128):
                left = 1 - (time.process_time() - started) / seconds
                if left <= 0:
                    return
                optimizer.param_groups[0]["lr"] = 2e-3 * left
                batch = nn.utils.rnn.pad_sequence([codes[i] for i in rows], True, -1)
                logits = self.output(self.lstm(self.embedding(batch[:, :-1].clamp(min=0)))[0])
                loss = nn.functional.cross_entropy(
                    logits.flatten(0, 1), batch[:, 1:].flatten(), ignore_index=-1
                )
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            self.n_iter += 1

    @torch.inference_mode()
    def sample(self, n, seed, temperature=1.0):
        generator = torch.Generator().manual_seed(seed)
        token, state = torch.zeros(n, 1, dtype=torch.long), None
        drawn, is_over = [], torch.zeros(n, 1, dtype=torch.bool)
        while len(drawn) < LONGEST and not is_over.all():
            out, state = self.lstm(self.embedding(token), state)
            probabilities = (self.output(out[:, 0]) / temperature).softmax(-1)
            token = torch.multinomial(probabilities, 1, generator=generator)
            drawn.append(token)
            is_over |= token == self.characters.index(END)
        texts = ["".join(self.characters[i] for i in row) for row in torch.cat(drawn, 1).tolist()]
        return [text.partition(END)[0] for text in texts]


class Resampling:
    """Molecules of fit, drawn again."""

    def fit(self, smiles, seconds, seed):
        self.smiles = smiles

    def sample(self, n, seed):
        return np.random.default_rng(seed).choice(self.smiles, n).tolist()


class Ours:
    """MoleculeDensity with default parameters; the time limit ends its training."""

    def __init__(self, head):
        self.head = head

    def fit(self, smiles, seconds, seed):
        with limits_of_processor_time():
            self.density = MoleculeDensity(
                head=self.head, time_limit=seconds, random_state=seed, contamination=None, **HEAVY
            ).fit(smiles)
        self.n_iter = self.density.n_iter_

    def sample(self, n, seed, **settings):
        drawn = self.density.sample(n, seed, **settings)
        return ["" if text is None else text for text in drawn]


CONTESTANTS = {
    "flow": lambda: Ours("flow"),
    "probabilities": lambda: Ours("categorical"),
    "LSTM": LSTM,
    "n-gram": NGram,
    "training molecules": Resampling,
}
TEMPERATURES = 1.0, 0.75
VARIANTS = {  # settings of samples
    Ours: [
        {"temperature": temperature, "check_valency": check}
        for check in (True, False)
        for temperature in TEMPERATURES
    ],
    LSTM: [{"temperature": temperature} for temperature in TEMPERATURES],
}


def molecules_of(smiles):
    """Return the molecules of SMILES that are valid."""
    with rdBase.BlockLogs():
        read_ = (Chem.MolFromSmiles(text) for text in smiles)
        return [m for m in read_ if m is not None and m.GetNumAtoms()]


def properties(molecules):
    """Return weight, logP, QED and synthetic accessibility of each molecule."""
    functions = Descriptors.MolWt, Crippen.MolLogP, QED.qed, sascorer.calculateScore
    return np.array([[f(m) for f in functions] for m in molecules])


def descriptors(molecules):
    """Return ten plain descriptors of each molecule."""
    functions = (
        Descriptors.MolWt,
        Crippen.MolLogP,
        Descriptors.TPSA,
        Descriptors.NumHDonors,
        Descriptors.NumHAcceptors,
        Descriptors.NumRotatableBonds,
        Descriptors.RingCount,
        Descriptors.FractionCSP3,
        rdMolDescriptors.CalcNumAromaticRings,
        Descriptors.BertzCT,
    )
    return np.array([[f(m) for f in functions] for m in molecules])


def fragments(molecule):
    return BRICS.BRICSDecompose(molecule)


def scaffolds(molecule):
    return [MurckoScaffold.MurckoScaffoldSmiles(mol=molecule)]


def summary(molecules):
    """Return what samples are compared by: counts of parts, descriptors and properties."""
    counts = {
        name: Counter(part for m in molecules for part in parts_of(m))
        for name, parts_of in (("fragments", fragments), ("scaffolds", scaffolds))
    }
    return counts, descriptors(molecules), properties(molecules)


def cosine(count, other):
    """Return the cosine between two counts of parts."""
    keys = [*(count | other)]
    a, b = (np.array([c[key] for key in keys], dtype=float) for c in (count, other))
    return float(a @ b / np.sqrt(a @ a * (b @ b)))


def frechet(x, y):
    """Return the Fréchet distance of normals with the moments of two tables."""
    gap = x.mean(axis=0) - y.mean(axis=0)
    a, b = np.cov(x.T), np.cov(y.T)
    return float(gap @ gap + np.trace(a + b - 2 * linalg.sqrtm(a @ b).real))


def quality(drawn, train):
    """Return the molecules of drawn SMILES, and their figures beside training SMILES."""
    molecules = molecules_of(drawn)
    canonical = {Chem.MolToSmiles(m) for m in molecules}
    morgan = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=1024)
    prints = [morgan.GetFingerprint(m) for m in molecules[:N_DIVERSE]]
    alike = [np.mean(DataStructs.BulkTanimotoSimilarity(p, prints)) for p in prints]
    return molecules, {
        "valid": len(molecules) / len(drawn),
        "unique": len(canonical) / max(len(molecules), 1),
        "novel": len(canonical - train) / max(len(canonical), 1),
        "diversity": 1 - float(np.mean(alike)),
    }


def distances(drawn, held_out):
    """Return the figures of drawn molecules beside held-out ones, from the summaries of both."""
    line = {name: cosine(drawn[0][name], held_out[0][name]) for name in drawn[0]}
    location, scale = held_out[1].mean(axis=0), held_out[1].std(axis=0)
    line["frechet"] = frechet(*((part[1] - location) / scale for part in (drawn, held_out)))
    for name, a, b in zip(PROPERTIES, drawn[2].T, held_out[2].T, strict=True):
        line[name] = float(stats.wasserstein_distance(a, b))
    return line


def show(lines):
    """Print the tables of `molecules.md`."""
    frame = pd.DataFrame(lines)
    names = ["method", "temperature", "check"]
    first = {
        "valid": ("valid", 3),
        "unique": ("unique", 3),
        "novel": ("novel", 3),
        "diversity": ("diversity", 3),
        "fragments": ("fragments", 3),
        "scaffolds": ("scaffolds", 3),
        "fit_seconds": ("fit, s", 0),
    }
    second = {
        "frechet": ("Fréchet", 2),
        "weight": ("weight", 2),
        "logp": ("logP", 3),
        "qed": ("QED", 4),
        "sa": ("SA", 3),
        "epochs": ("epochs", 0),
        "fit_seconds": ("fit, s", 0),
        "sample_seconds": ("10,000 samples, s", 0),
        "test_score": ("held-out nats", 2),
    }
    with_distances = frame.dropna(subset="frechet").replace({"epochs": {0: np.nan}})
    for columns, rows in (first, frame), (second, with_distances):
        table = rows.set_index(names)[list(columns)]
        heads = {key: head for key, (head, _) in columns.items()}
        print_table(table.rename(columns=heads), dict(columns.values()))
        print()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--table", type=Path, help="print the tables of this file and leave")
    parser.add_argument("--methods", nargs="*", default=list(CONTESTANTS))
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.table:
        show(read(args.table))
        return
    if args.data is None or args.out is None:
        parser.error("give --data and --out, or --table")

    torch.set_num_threads(1)
    opened = gzip.open if args.data.suffix == ".gz" else open
    with opened(args.data, "rt") as file:
        smiles = np.array(file.read().split())
    order = np.random.default_rng(args.seed).permutation(len(smiles))
    n_test = len(smiles) // 10
    test, train = smiles[order[:n_test]], smiles[order[n_test:]].tolist()
    known = {Chem.MolToSmiles(m) for m in molecules_of(train)}
    held_out = summary(molecules_of(test))
    for method in args.methods:
        model = CONTESTANTS[method]()
        started = time.process_time()
        model.fit(train, args.seconds, args.seed)
        fitted = {"fit_seconds": round(time.process_time() - started, 1)}
        fitted["epochs"] = getattr(model, "n_iter", 0)
        if isinstance(model, Ours):
            fitted["test_score"] = round(model.density.score(test), 3)
        for variant in VARIANTS.get(type(model), [{}]):
            started = time.process_time()
            drawn = model.sample(args.samples, args.seed, **variant)
            seconds = time.process_time() - started
            molecules, line = quality(drawn, known)
            if variant.get("check_valency", True) and len(molecules) >= FEWEST:
                line |= distances(summary(molecules), held_out)
            line = {
                "method": method,
                "temperature": variant.get("temperature", 1.0),
                "check": "yes" if variant.get("check_valency") else "no",
                "seed": args.seed,
                "samples": args.samples,
                **{name: round(value, 4) for name, value in line.items()},
                **fitted,
                "sample_seconds": round(seconds, 1),
            }
            print(json.dumps(line), flush=True)
            append(args.out, line)


if __name__ == "__main__":
    main()
