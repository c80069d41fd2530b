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
from protocol import append, print_table, read
from rdkit import Chem, DataStructs, rdBase
from rdkit.Chem import BRICS, QED, Crippen, Descriptors, rdFingerprintGenerator, rdMolDescriptors
from rdkit.Chem.Scaffolds import MurckoScaffold
from rdkit.Contrib.SA_Score import sascorer
from scipy import linalg, stats
from torch import nn

from skflows.graphs import MoleculeDensity

ORDER = 6  # characters of which an n-gram consists
LEAST = 3  # occurrences of a context, or a shorter one is used
N_DIVERSE = 1000  # samples whose distances are compared
HEAVY = {"max_iter": 10_000, "n_iter_no_change": 10_000}  # time ends the training
START, END = "^", "$"


class NGram:
    """The next character, given the five before it, or fewer if these are rare."""

    def fit(self, smiles, seconds, seed):
        self.counts = defaultdict(Counter)
        for text in smiles:
            text = START * (ORDER - 1) + text + END
            for i in range(ORDER - 1, len(text)):
                for n in range(ORDER):
                    self.counts[text[i - n : i]][text[i]] += 1

    def sample(self, n, seed):
        rng = np.random.default_rng(seed)
        return [self._drawn(rng) for _ in range(n)]

    def _drawn(self, rng):
        text = START * (ORDER - 1)
        while text[-1] != END and len(text) < 200:
            contexts = (text[len(text) - k :] for k in range(ORDER - 1, -1, -1))
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
    def sample(self, n, seed):
        generator = torch.Generator().manual_seed(seed)
        token, state = torch.zeros(n, 1, dtype=torch.long), None
        drawn = []
        for _ in range(150):
            out, state = self.lstm(self.embedding(token), state)
            probabilities = self.output(out[:, 0]).softmax(-1)
            token = torch.multinomial(probabilities, 1, generator=generator)
            drawn.append(token)
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

    def __init__(self, head, check_valency=True, temperature=1.0):
        self.settings = {"check_valency": check_valency, "temperature": temperature}
        self.head = head

    def fit(self, smiles, seconds, seed):
        with clock_of_processor():
            self.density = MoleculeDensity(
                head=self.head, time_limit=seconds, random_state=seed, contamination=None, **HEAVY
            ).fit(smiles)
        self.n_iter = self.density.n_iter_

    def sample(self, n, seed):
        drawn = self.density.sample(n, seed, **self.settings)
        return ["" if text is None else text for text in drawn]


def clock_of_processor():
    """Let limits count the time of the processor."""
    from unittest.mock import patch

    return patch("skflows.callbacks._run.time.time", time.process_time)


CONTESTANTS = {
    "flow": lambda: Ours("flow"),
    "probabilities": lambda: Ours("categorical"),
    "LSTM": LSTM,
    "n-gram": NGram,
    "training molecules": Resampling,
}
TEMPERATURES = 1.0, 0.75


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


def similarity(molecules, others, parts_of):
    """Return the cosine between how often parts occur in two lists of molecules."""
    counts = [Counter(part for m in some for part in parts_of(m)) for some in (molecules, others)]
    keys = [*(counts[0] | counts[1])]
    a, b = (np.array([count[key] for key in keys], dtype=float) for count in counts)
    return float(a @ b / np.sqrt(a @ a * (b @ b)))


def frechet(x, y):
    """Return the Fréchet distance of normals with the moments of two tables."""
    gap = x.mean(axis=0) - y.mean(axis=0)
    a, b = np.cov(x.T), np.cov(y.T)
    return float(gap @ gap + np.trace(a + b - 2 * linalg.sqrtm(a @ b).real))


def evaluated(drawn, train, test):
    """Return the figures of drawn SMILES, by training SMILES and held-out molecules."""
    molecules = molecules_of(drawn)
    canonical = [Chem.MolToSmiles(m) for m in molecules]
    some = molecules[:N_DIVERSE]
    morgan = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=1024)
    prints = [morgan.GetFingerprint(m) for m in some]
    alike = [np.mean(DataStructs.BulkTanimotoSimilarity(p, prints)) for p in prints]
    line = {
        "valid": len(molecules) / len(drawn),
        "unique": len(set(canonical)) / len(canonical),
        "novel": float(np.mean([text not in train for text in set(canonical)])),
        "diversity": 1 - float(np.mean(alike)),
        "fragments": similarity(molecules, test, fragments),
        "scaffolds": similarity(molecules, test, scaffolds),
    }
    expected = descriptors(test)
    scale = expected.mean(axis=0), expected.std(axis=0)
    line["frechet"] = frechet(
        (descriptors(molecules) - scale[0]) / scale[1], (expected - scale[0]) / scale[1]
    )
    for name, a, b in zip(
        ("weight", "logp", "qed", "sa"), properties(molecules).T, properties(test).T, strict=True
    ):
        line[name] = float(stats.wasserstein_distance(a, b))
    return {name: round(value, 4) for name, value in line.items()}


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
    }
    second = {
        "frechet": ("Fréchet", 2),
        "weight": ("weight", 2),
        "logp": ("logP", 3),
        "qed": ("QED", 4),
        "sa": ("SA", 3),
        "fit_seconds": ("fit, s", 0),
        "sample_seconds": ("10,000 samples, s", 0),
        "test_score": ("held-out nats", 2),
    }
    for columns in first, second:
        table = frame.set_index(names)[[c for c in columns if c in frame]]
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
    test_molecules = molecules_of(test)
    for method in args.methods:
        model = CONTESTANTS[method]()
        started = time.process_time()
        model.fit(train, args.seconds, args.seed)
        fitted = {"fit_seconds": round(time.process_time() - started, 1)}
        fitted["epochs"] = getattr(model, "n_iter", 0)
        variants = [{}]
        if isinstance(model, Ours):
            fitted["test_score"] = round(model.density.score(test), 3)
            variants = [
                {"temperature": temperature, "check_valency": check}
                for check in (True, False)
                for temperature in TEMPERATURES
            ]
        for variant in variants:
            if variant:
                model.settings = variant
            started = time.process_time()
            drawn = model.sample(args.samples, args.seed)
            seconds = time.process_time() - started
            line = {
                "method": method,
                "temperature": variant.get("temperature", 1.0),
                "check": "yes" if variant.get("check_valency") else "no",
                "seed": args.seed,
                **evaluated(drawn, known, test_molecules),
                **fitted,
                "sample_seconds": round(seconds, 1),
            }
            print(json.dumps(line), flush=True)
            append(args.out, line)


if __name__ == "__main__":
    main()
