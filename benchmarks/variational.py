"""Variational densities of known functions, of real posteriors and of a lattice.

    python benchmarks/variational.py PART --data DIR --out FILE
    python benchmarks/variational.py --table FILE

PART is one of ``known`` (functions with a known constant), ``posteriors`` (from the collection
posteriordb: DIR holds NAME.data.json.gz and NAME.draws.npz with reference draws), ``lattice`` and
``refine`` (chains by couplings and by a residual flow).
Seconds are of processor time, of one thread.
"""

import argparse
import gzip
import json
import math
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from protocol import append, print_table, read
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import cross_val_score
from torch.distributions import Cauchy, Gamma, Normal, StudentT

from skflows import ResidualDensity, VariationalDensity

N_DRAWS = 8000
TWO_PI = 2 * math.pi


def normal_log_prob(z):
    return -0.5 * (z.square() + math.log(TWO_PI)).sum(-1)


def rezende(number):
    """Return an energy of Rezende & Mohamed (2015), negative, whose first column is bounded."""

    def bump(x, width):
        return -0.5 * (x / width).square()

    def log_density(x):
        a, b = x.unbind(1)
        if number == 1:
            sides = torch.logaddexp(bump(a - 2, 0.6), bump(a + 2, 0.6))
            return bump(x.norm(dim=1) - 2, 0.4) + sides
        b = b - torch.sin(TWO_PI * a / 4)
        if number == 2:
            return bump(b, 0.4)
        if number == 3:
            return torch.logaddexp(bump(b, 0.35), bump(b + 3 * bump(a - 1, 0.6).exp(), 0.35))
        return torch.logaddexp(bump(b, 0.4), bump(b + 3 * torch.sigmoid((a - 1) / 0.3), 0.35))

    return log_density


def rezende_constant(number):
    if number == 1:
        axis = torch.linspace(-8, 8, 4001, dtype=torch.float64)
        rows = torch.cartesian_prod(axis, axis)
        cell = (axis[1] - axis[0]).item() ** 2
        return torch.logsumexp(rezende(1)(rows), 0).item() + math.log(cell)
    return math.log(8 * math.sqrt(TWO_PI) * {2: 0.4, 3: 0.7, 4: 0.75}[number])


def banana(x):
    bent = torch.stack([x[:, 0] / 10, x[:, 1] + 0.1 * (x[:, 0] ** 2 - 100)], 1)
    return normal_log_prob(bent) - math.log(10)


def funnel(x):
    scale = x[:, :1] / 2
    rest = normal_log_prob(x[:, 1:] * (-scale).exp()) - (x.shape[1] - 1) * scale[:, 0]
    return normal_log_prob(x[:, :1] / 3) - math.log(3) + rest


def ring(x):
    angles = torch.arange(8, dtype=x.dtype) * TWO_PI / 8
    centres = 4 * torch.stack([angles.cos(), angles.sin()], 1)
    parts = normal_log_prob((x[:, None] - centres) / 0.5) - 2 * math.log(0.5)
    return torch.logsumexp(parts, 1) - math.log(8)


def two_normals(x):
    half = 4 / math.sqrt(x.shape[1])
    both = torch.logaddexp(normal_log_prob(x - half), normal_log_prob(x + half))
    return both - math.log(2)


def correlated_t(x, nu=5):
    """Student's t with 5 degrees of freedom and an autoregressive correlation."""
    d = x.shape[1]
    distance = (torch.arange(d)[:, None] - torch.arange(d)).abs()
    factor = torch.linalg.cholesky(0.9 ** distance.double())
    z = torch.linalg.solve_triangular(factor, x.T, upper=False)
    constant = math.lgamma((nu + d) / 2) - math.lgamma(nu / 2) - d / 2 * math.log(nu * math.pi)
    constant -= factor.diagonal().log().sum()
    return constant - (nu + d) / 2 * (z.square().sum(0) / nu).log1p()


BOX = {0: (-4, 4)}
# Name: function, number of columns, bounds, logarithm of the constant.
KNOWN = {
    "energy 1": (rezende(1), 2, None, 1),
    "energy 2": (rezende(2), 2, BOX, 2),
    "energy 3": (rezende(3), 2, BOX, 3),
    "energy 4": (rezende(4), 2, BOX, 4),
    "banana": (banana, 2, None, None),
    "funnel, d=10": (funnel, 10, None, None),
    "ring of eight": (ring, 2, None, None),
    "two normals, d=20": (two_normals, 20, None, None),
    "Student-t, d=20": (correlated_t, 20, None, None),
}
# Standard deviation of the first column.
KNOWN_SD = {
    "banana": 10.0,
    "funnel, d=10": 3.0,
    "ring of eight": math.sqrt(8 + 0.25),
    "two normals, d=20": math.sqrt(1 + 16 / 20),
    "Student-t, d=20": math.sqrt(5 / 3),
}


class Regression:
    """The log-likelihood of a normal regression, from a QR decomposition."""

    def __init__(self, X, y):
        X = torch.as_tensor(np.asarray(X, dtype=np.float64))
        y = torch.as_tensor(np.asarray(y, dtype=np.float64))
        q, self.r = torch.linalg.qr(X)
        self.target = q.T @ y
        self.rest = (y - q @ self.target).square().sum()
        self.n = len(y)

    def __call__(self, beta, sigma):
        squares = (self.target - beta @ self.r.T).square().sum(1) + self.rest
        return -0.5 * squares / sigma**2 - self.n * (sigma.log() + 0.5 * math.log(TWO_PI))


def with_interaction(a, b):
    a, b = np.array(a, dtype=float), np.array(b, dtype=float)
    return np.column_stack([np.ones(len(a)), a, b, a * b])


def positive(*columns):
    return {"bounds": dict.fromkeys(columns, (0, None))}


def half_cauchy(x, scale):
    return Cauchy(0.0, scale).log_prob(x)


def eight_schools(data):
    y, sigma = (torch.tensor(data[key], dtype=torch.float64) for key in ("y", "sigma"))

    def log_density(x):
        z, mu, tau = x[:, :8], x[:, 8:9], x[:, 9:]
        prior = normal_log_prob(z) + Normal(0.0, 5.0).log_prob(mu)[:, 0] + half_cauchy(tau[:, 0], 5)
        return prior + Normal(mu + tau * z, sigma).log_prob(y).sum(1)

    def to_draws(x):
        return np.column_stack([x[:, 8:9] + x[:, 9:] * x[:, :8], x[:, 8:]])

    return log_density, 10, positive(9), to_draws


def kidscore(data):
    likelihood = Regression(with_interaction(data["mom_hs"], data["mom_iq"]), data["kid_score"])

    def log_density(x):
        return likelihood(x[:, :4], x[:, 4]) + half_cauchy(x[:, 4], 2.5)

    return log_density, 5, positive(4), None


def logearn(data):
    likelihood = Regression(with_interaction(data["height"], data["male"]), np.log(data["earn"]))
    return lambda x: likelihood(x[:, :4], x[:, 4]), 5, positive(4), None


def kilpisjarvi(data):
    likelihood = Regression(np.column_stack([np.ones(data["N"]), data["x"]]), data["y"])
    alpha = Normal(data["pmualpha"], data["psalpha"])
    beta = Normal(float(data["pmubeta"]), data["psbeta"])

    def log_density(x):
        return likelihood(x[:, :2], x[:, 2]) + alpha.log_prob(x[:, 0]) + beta.log_prob(x[:, 1])

    return log_density, 3, positive(2), None


def blr(data):
    likelihood = Regression(data["X"], data["y"])
    prior = Normal(0.0, 10.0)
    return lambda x: likelihood(x[:, :5], x[:, 5]) + prior.log_prob(x).sum(1), 6, positive(5), None


def arma11(data):
    y = torch.tensor(data["y"], dtype=torch.float64)

    def log_density(x):
        mu, phi, theta, sigma = x.unbind(1)
        shocks = y - mu[:, None] - phi[:, None] * torch.cat([y.new_zeros(1), y[:-1]])
        errors = [y[0] - mu - phi * mu]
        for shock in shocks.unbind(1)[1:]:
            errors.append(shock - theta * errors[-1])
        likelihood = Normal(0.0, sigma).log_prob(torch.stack(errors)).sum(0)
        prior = Normal(0.0, 10.0).log_prob(mu) + half_cauchy(sigma, 2.5)
        return likelihood + prior + Normal(0.0, 2.0).log_prob(x[:, 1:3]).sum(1)

    return log_density, 4, positive(3), None


def hmm(data):
    y = torch.tensor(data["y"], dtype=torch.float64)

    def log_density(x):
        moves = x[:, :4].log().unflatten(1, (2, 2))
        mu = x[:, 4:]
        emitted = Normal(mu[:, None], 1.0).log_prob(y[:, None])
        state = emitted[:, 0]
        for each in emitted.unbind(1)[1:]:
            state = torch.logsumexp(state[:, :, None] + moves, 1) + each
        prior = Normal(torch.tensor([3.0, 10.0]), 1.0).log_prob(mu).sum(1)
        return torch.logsumexp(state, 1) + prior

    constraints = {"simplex": [[0, 1], [2, 3]], "ordered": [[4, 5]], **positive(4, 5)}
    return log_density, 6, constraints, None


def gaussian_process(data):
    x_ = torch.tensor(data["x"], dtype=torch.float64)
    squares = (x_[:, None] - x_).square()
    k = torch.tensor(data["k"], dtype=torch.float64)

    def values(x):
        rho, alpha = x[:, 0, None, None], x[:, 1, None, None]
        K = alpha**2 * (-0.5 * squares / rho**2).exp() + 1e-10 * torch.eye(len(k)).double()
        factor, failed = torch.linalg.cholesky_ex(K)
        return (factor @ x[:, 2:, None])[..., 0], failed > 0

    def log_density(x):
        f, failed = values(x)
        prior = Gamma(25.0, 4.0).log_prob(x[:, 0]) + Normal(0.0, 2.0).log_prob(x[:, 1])
        likelihood = (k * f - f.exp() - (k + 1).lgamma()).sum(1)
        total = likelihood + prior + normal_log_prob(x[:, 2:])
        return total.masked_fill(failed, -math.inf)

    def to_draws(x):
        return np.column_stack([x[:, :2], values(torch.tensor(x))[0].numpy()])

    return log_density, 13, positive(0, 1), to_draws


def lotka_volterra(data, n_parts=3):  # of a year, which change the log-density by .005
    y = torch.tensor(data["y"], dtype=torch.float64).log()
    y_init = torch.tensor(data["y_init"], dtype=torch.float64).log()
    h = 1 / n_parts

    def log_density(x):
        rate, start, sigma = x[:, :4].T, x[:, 4:6], x[:, 6:]
        growth = torch.stack([rate[0], -rate[2]])
        loss = torch.stack([-rate[1], rate[3]])

        def slope(log_z):  # of the logarithms, by which no population becomes negative
            return torch.addcmul(growth, loss, log_z.flip(0).exp())

        log_z, path = start.T.log(), []
        for _ in data["ts"]:
            for _ in range(n_parts):
                k1 = slope(log_z)
                k2 = slope(log_z.add(k1, alpha=h / 2))
                k3 = slope(log_z.add(k2, alpha=h / 2))
                k4 = slope(log_z.add(k3, alpha=h))
                log_z = log_z.add((k2 + k3).mul(2) + k1 + k4, alpha=h / 6)
            path.append(log_z.T)
        # The checks of a distribution would raise an error where a population is NaN, far out.
        observed = Normal(torch.stack(path, 1), sigma[:, None], validate_args=False)
        likelihood = observed.log_prob(y).sum((1, 2))
        likelihood = likelihood + Normal(start.log(), sigma).log_prob(y_init).sum(1)
        prior = Normal(torch.tensor([1.0, 0.05, 1.0, 0.05]), torch.tensor([0.5, 0.05, 0.5, 0.05]))
        prior = prior.log_prob(x[:, :4]).sum(1)
        prior = prior + (Normal(-1.0, 1.0).log_prob(sigma.log()) - sigma.log()).sum(1)
        prior = prior + (Normal(math.log(10), 1.0).log_prob(start.log()) - start.log()).sum(1)
        return likelihood + prior

    return log_density, 8, positive(*range(8)), None


def diamonds(data):
    X = np.array(data["X"], dtype=float)[:, 1:]
    X = np.column_stack([X - X.mean(axis=0), np.ones(len(X))])
    likelihood = Regression(X, data["Y"])

    def log_density(x):
        prior = normal_log_prob(x[:, :24]) + StudentT(3.0, 8.0, 10.0).log_prob(x[:, 24])
        prior = prior + StudentT(3.0, 0.0, 10.0).log_prob(x[:, 25])
        return likelihood(x[:, :25], x[:, 25]) + prior

    return log_density, 26, positive(25), None


POSTERIORS = {
    "eight_schools_noncentered": eight_schools,
    "kidscore_interaction": kidscore,
    "logearn_interaction": logearn,
    "kilpisjarvi": kilpisjarvi,
    "blr": blr,
    "arma11": arma11,
    "hmm_example": hmm,
    "gp_pois_regr": gaussian_process,
    "lotka_volterra": lotka_volterra,
    "diamonds": diamonds,
}


def lattice(mass, strength=6.008, side=8):
    """Return the phi^4 model of Albergo, Kanwar & Shanahan (2019) on a torus."""

    def log_density(x):
        phi = x.unflatten(1, (side, side))
        action = (4 + mass) * phi.square() + strength * phi.pow(4)
        for axis in (1, 2):
            action = action - 2 * phi * phi.roll(1, axis)
        return -action.sum((1, 2))

    return log_density


MASSES = (4, 0, -2, -4)

REFINED = (
    "energy 1",
    "energy 4",
    "banana",
    "eight_schools_noncentered",
    "blr",
)
FLOWS = {"couplings": None, "residual": ResidualDensity()}


def fit(log_density, d, seed, **parameters):
    """Return a fitted density, and what it says of itself."""
    started = time.process_time()
    with warnings.catch_warnings(action="ignore"):
        density = VariationalDensity(random_state=seed, **parameters).fit(log_density, d)
    return density, {
        "seed": seed,
        "d": d,
        "seconds": time.process_time() - started,
        "steps": 10 * density.n_iter_,
        "k": density.pareto_k_,
        "ess": density.ess_,
        "modes": density.n_modes_,
        "reliable": density.reliable_,
        "log_z": density.log_evidence_,
    }


def classifier_accuracy(X, reference):
    """Return the held-out accuracy of a classifier of draws and reference draws: 0.5 is best."""
    n = min(len(X), len(reference))
    rows = np.concatenate([X[:n], reference[:n]])
    labels = np.repeat([0, 1], n)
    model = HistGradientBoostingClassifier(max_iter=50, random_state=0)
    order = np.random.default_rng(0).permutation(2 * n)
    return cross_val_score(model, rows[order], labels[order], cv=5).mean()


def measure_known(name, seed, folder):
    function, d, bounds, constant = KNOWN[name]
    density, line = fit(function, d, seed, bounds=bounds)
    constant = 0.0 if constant is None else rezende_constant(constant)
    line["log_z_error"] = abs(line["log_z"] - constant)
    if name in KNOWN_SD:
        line["sd_ratio"] = density.sample(N_DRAWS, seed)[:, 0].std() / KNOWN_SD[name]
    return line


def posterior(name, folder):
    """Return the function, number of columns, constraints and map of draws of a posterior."""
    with gzip.open(folder / f"{name}.data.json.gz") as file:
        return POSTERIORS[name](json.load(file))


def measure_posterior(name, seed, folder):
    function, d, constraints, to_draws = posterior(name, folder)
    with np.load(folder / f"{name}.draws.npz") as file:
        draws, mean, sd = file["draws"], file["mean"], file["sd"]
    density, line = fit(function, d, seed, **constraints)
    X = density.sample(N_DRAWS, seed)
    X = X if to_draws is None else to_draws(X)
    ratio = X.std(axis=0) / sd
    return line | {
        "mean_error": np.abs((X.mean(axis=0) - mean) / sd).max(),
        "sd_low": ratio.min(),
        "sd_high": ratio.max(),
        "c2st": classifier_accuracy(X, draws),
    }


def measure_lattice(name, seed, folder):
    _, line = fit(lattice(int(name)), 64, seed)
    return line


def measure_refine(name, seed, folder):
    """Draw by chains that use a flow."""
    target, flow = name.split(": ")
    if target in KNOWN:
        function, d, bounds, _ = KNOWN[target]
        constraints = {"bounds": bounds}
    else:
        function, d, constraints, _ = posterior(target, folder)
    density, line = fit(function, d, seed, density=FLOWS[flow], **constraints)
    started = time.process_time()
    with warnings.catch_warnings(action="ignore"):
        sample = density.refine(random_state=seed)
    seconds = time.process_time() - started
    return line | {
        "refine_seconds": seconds,
        "acceptance": sample.acceptance,
        "r_hat": sample.r_hat.max(),
        "draws_per_second": sample.ess.min() / seconds,
    }


PARTS = {
    "known": (measure_known, list(KNOWN)),
    "posteriors": (measure_posterior, list(POSTERIORS)),
    "lattice": (measure_lattice, [str(mass) for mass in MASSES]),
    "refine": (measure_refine, [f"{name}: {flow}" for name in REFINED for flow in FLOWS]),
}


def show(lines):
    """Print the tables of `variational.md`."""
    shared = {"d": ("columns", 0), "steps": ("steps", 0), "k": ("k", 2), "ess": ("ESS", 3)}
    columns = {
        "known": {"log_z_error": ("error of log Z", 4), "sd_ratio": ("ratio of sd", 2)},
        "posteriors": {
            "mean_error": ("error of means", 3),
            "sd_low": ("least ratio of sd", 2),
            "sd_high": ("largest", 2),
            "c2st": ("C2ST", 2),
        },
        "lattice": {},
    }
    for part, own in columns.items():
        chosen = {**shared, "modes": ("modes", 0), **own, "seconds": ("seconds", 1)}
        if not (chosen_lines := [line for line in lines if line["part"] == part]):
            continue
        frame = pd.DataFrame(chosen_lines)
        frame = frame.set_index("name").rename_axis("m^2" if part == "lattice" else "function")
        print_table(
            frame[[*chosen]].rename(columns=lambda key: chosen[key][0]),  # noqa: B023
            dict(chosen.values()),
        )
        print()
    if refined := [line for line in lines if line["part"] == "refine"]:
        show_refined(pd.DataFrame(refined))


def show_refined(frame):
    """Print a row for each function, with a column for each flow."""
    frame[["function", "flow"]] = frame["name"].str.split(": ", expand=True)
    columns = {
        "ess": ("ESS", 3),
        "acceptance": ("acceptance", 2),
        "draws_per_second": ("draws a second", 0),
        "seconds": ("seconds of fit", 1),
    }
    table = frame.pivot(index="function", columns="flow", values=[*columns])
    digits = {f"{columns[key][0]}, {flow}": columns[key][1] for key, flow in table.columns}
    table.columns = list(digits)
    print_table(table, digits)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", nargs="?", choices=PARTS)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--table", type=Path, help="print the tables of this file and leave")
    parser.add_argument("--names", nargs="*")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.table:
        show(read(args.table))
        return
    torch.set_num_threads(1)
    measure, names = PARTS[args.part]
    done = {(line["part"], line["name"], line["seed"]) for line in read(args.out)}
    for name in args.names or names:
        if (args.part, name, args.seed) not in done:
            line = measure(name, args.seed, args.data)
            append(args.out, {"part": args.part, "name": name, **line})
            print(name, line, flush=True)


if __name__ == "__main__":
    main()
