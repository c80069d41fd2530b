"""Variational densities beside other libraries, at equal processor time in the same process.

    python benchmarks/variational_peers.py --data DIR --out FILE
    python benchmarks/variational_peers.py --table FILE

DIR holds the posteriors, see `variational.py`. A peer is trained for as many seconds of processor
time as our fit took. zuko and normflows are given our map to unconstrained and whitened columns,
except for one that starts without. NumPyro and its sampler NUTS get the model in NumPyro's own
language; compilation does not count.
"""

import argparse
import gzip
import json
import math
import os
import time
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from protocol import append, print_table, read
from variational import KNOWN, KNOWN_SD, N_DRAWS, POSTERIORS, correlated_t, fit

from skflows.variational._chains import diagnostics
from skflows.variational._importance import importance_weights
from skflows.variational._support import support_map

OURS = "VariationalDensity"
KNOWN_NAMES = [*KNOWN_SD]
POSTERIOR_NAMES = [
    "eight_schools_noncentered",
    "kidscore_interaction",
    "kilpisjarvi",
    "blr",
    "gp_pois_regr",
    "diamonds",
]
BATCH, CHUNK, WARM_UP, N_CHAINS = 256, 100, 1000, 4
ENOUGH = 1000  # effective draws


class Case:
    """A function, what is known of it, and how to judge draws."""

    def __init__(self, name, folder):
        self.name = name
        if name in KNOWN:
            self.function, self.d, bounds, _ = KNOWN[name]
            self.constraints, self.to_draws = {"bounds": bounds}, None
            return
        with gzip.open(folder / f"{name}.data.json.gz") as file:
            self.data = json.load(file)
        self.function, self.d, self.constraints, self.to_draws = POSTERIORS[name](self.data)
        with np.load(folder / f"{name}.draws.npz") as file:
            self.mean, self.sd = file["mean"], file["sd"]

    def error(self, X):
        """Return the largest error of means, in standard deviations, and of their ratios."""
        X = X if self.to_draws is None else self.to_draws(X)
        if self.name in KNOWN:  # of the first column
            mean, sd = X[:, 0].mean() / KNOWN_SD[self.name], X[:, 0].std() / KNOWN_SD[self.name]
        else:
            mean, sd = (X.mean(axis=0) - self.mean) / self.sd, X.std(axis=0) / self.sd
        error = max(np.abs(mean).max(), np.abs(sd - 1).max())
        return float(error) if np.isfinite(error) else math.inf


def judged(case, X, log_ratio):
    """Return what the draws of a fit and the logs of their weights say."""
    weights = importance_weights(log_ratio)
    line = {"k": weights.pareto_k, "ess": weights.ess, "error": case.error(X)}
    return line | ({"log_z_error": abs(weights.log_mean)} if case.name in KNOWN else {})


def ours(case, seed):
    """Return our line, with the map to whitened rows, and the seconds of the fit."""
    density, line = fit(case.function, case.d, seed, **case.constraints)
    line |= {"error": case.error(density.sample(N_DRAWS, seed))}
    if case.name in KNOWN:
        line["log_z_error"] = abs(line["log_z"])
    return line, density.flow_.preprocess


def zuko_flow(architecture, d):
    """The flow of zuko's tutorial for an energy: turned round, so that it draws in one pass."""
    import zuko

    flow = getattr(zuko.flows, architecture)(features=d, transforms=3, hidden_features=(64, 64))
    flow = zuko.flows.Flow(flow.transform.inv, flow.base)
    return flow, lambda n: flow().rsample_and_log_prob((n,)), {"lr": 1e-3}


def normflows_flow(architecture, d):
    """The flow of normflows' first example, for any number of columns."""
    import normflows as nf

    half, steps = d // 2, []
    for _ in range(32):
        sizes = [d - half, 64, 64, 2 * half]  # the first half stays, rounded up
        steps.append(nf.flows.AffineCouplingBlock(nf.nets.MLP(sizes, init_zeros=True)))
        steps.append(nf.flows.Permute(d, mode="shuffle" if d > 2 else "swap"))
    flow = nf.NormalizingFlow(nf.distributions.base.DiagGaussian(d), steps)
    return flow, flow.sample, {"lr": 5e-4, "weight_decay": 1e-5}


def torch_peer(build, architecture, case, seed, seconds, preprocess):
    """Train a flow of zuko or normflows by the reverse divergence and Adam."""
    started = time.process_time()
    torch.manual_seed(seed)
    flow, draw, settings = build(architecture, preprocess.n_free)
    optimizer = torch.optim.Adam(flow.parameters(), **settings)

    def log_ratio(n):
        u, log_q = draw(n)
        x, log_det = preprocess.inverse(u.double())
        return x, case.function(x) + log_det - log_q

    steps = 0
    while time.process_time() - started < seconds:
        _, ratio = log_ratio(BATCH)
        loss = -ratio.mean()
        steps += 1
        if loss.isfinite():
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        parts = [log_ratio(N_DRAWS // 8) for _ in range(8)]
    X, ratio = (torch.cat(part).numpy() for part in zip(*parts, strict=True))
    return {"steps": steps, **judged(case, X, ratio)}


def numpyro_model(case):
    """Return a model of NumPyro, and the names of its parameters in our order."""
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist
    from jax.scipy.linalg import solve_triangular
    from jax.scipy.special import logsumexp

    sample, d = numpyro.sample, case.d

    def flat(name, shape=()):
        support = dist.constraints.real if shape == () else dist.constraints.real_vector
        return sample(name, dist.ImproperUniform(support, (), shape))

    def normal(z):
        return -0.5 * (z**2 + math.log(2 * math.pi)).sum(-1)

    if case.name in KNOWN:
        angles = jnp.arange(8) * 2 * math.pi / 8
        centres = 4 * jnp.stack([jnp.cos(angles), jnp.sin(angles)], 1)
        factor = np.linalg.cholesky(0.9 ** np.abs(np.subtract.outer(range(d), range(d))))
        at_0 = correlated_t(torch.zeros(1, d, dtype=torch.float64)).item()
        half = 4 / math.sqrt(d)

        def funnel(x):
            scale = x[0] / 2
            return (
                normal(x[:1] / 3) - math.log(3) + normal(x[1:] * jnp.exp(-scale)) - (d - 1) * scale
            )

        def student(x):
            z = solve_triangular(factor, x, lower=True)
            return at_0 - (5 + d) / 2 * jnp.log1p((z**2).sum() / 5)

        def banana(x):
            return normal(jnp.stack([x[0] / 10, x[1] + 0.1 * (x[0] ** 2 - 100)])) - math.log(10)

        functions = {
            "banana": banana,
            "funnel, d=10": funnel,
            "ring of eight": lambda x: logsumexp(normal((x - centres) / 0.5)) - math.log(2),
            "two normals, d=20": lambda x: (
                jnp.logaddexp(normal(x - half), normal(x + half)) - math.log(2)
            ),
            "Student-t, d=20": student,
        }

        def known():
            numpyro.factor("value", functions[case.name](flat("x", (d,))))

        return known, ["x"]

    data = {key: np.asarray(value, dtype=float) for key, value in case.data.items()}

    def regression(X, y, prior):
        def model():
            beta, sigma = prior()
            sample("y", dist.Normal(X @ beta, sigma), obs=y)

        return model, ["beta", "sigma"]

    if case.name == "eight_schools_noncentered":

        def schools():
            z = sample("z", dist.Normal(0, 1).expand([8]))
            mu = sample("mu", dist.Normal(0, 5))
            tau = sample("tau", dist.HalfCauchy(5))
            sample("y", dist.Normal(mu + tau * z, data["sigma"]), obs=data["y"])

        return schools, ["z", "mu", "tau"]
    if case.name == "kidscore_interaction":
        hs, iq = data["mom_hs"], data["mom_iq"]
        X = np.column_stack([np.ones(len(hs)), hs, iq, hs * iq])
        return regression(
            X,
            data["kid_score"],
            lambda: (flat("beta", (4,)), sample("sigma", dist.HalfCauchy(2.5))),
        )
    if case.name == "kilpisjarvi":
        X = np.column_stack([np.ones(len(data["x"])), data["x"]])
        loc = np.array([data["pmualpha"], data["pmubeta"]])
        scale = np.array([data["psalpha"], data["psbeta"]])

        def prior():
            positive = dist.ImproperUniform(dist.constraints.positive, (), ())
            return sample("beta", dist.Normal(loc, scale)), sample("sigma", positive)

        return regression(X, data["y"], prior)
    if case.name == "blr":

        def prior():
            beta = sample("beta", dist.Normal(0, 10).expand([5]))
            return beta, sample("sigma", dist.HalfNormal(10))

        return regression(data["X"], data["y"], prior)
    if case.name == "diamonds":
        X = data["X"][:, 1:] - data["X"][:, 1:].mean(axis=0)
        q, r = np.linalg.qr(np.column_stack([X, np.ones(len(X))]))
        projected = q.T @ data["Y"]
        rest = ((data["Y"] - q @ projected) ** 2).sum()

        def regressed():  # by a QR decomposition, as ours
            b = sample("b", dist.Normal(0, 1).expand([24]))
            intercept = sample("intercept", dist.StudentT(3, 8, 10))
            positive = dist.ImproperUniform(dist.constraints.positive, (), ())
            sigma = sample("sigma", positive)
            numpyro.factor("prior", dist.StudentT(3, 0, 10).log_prob(sigma))
            beta = jnp.concatenate([b, intercept[None]])
            squares = ((projected - r @ beta) ** 2).sum() + rest
            numpyro.factor("likelihood", -0.5 * squares / sigma**2 - len(X) * jnp.log(sigma))

        return regressed, ["b", "intercept", "sigma"]
    x, k = data["x"], data["k"]

    def process():
        rho = sample("rho", dist.Gamma(25.0, 4.0))
        alpha = sample("alpha", dist.HalfNormal(2))
        z = sample("z", dist.Normal(0, 1).expand([11]))
        K = alpha**2 * jnp.exp(-0.5 * (x[:, None] - x) ** 2 / rho**2) + 1e-10 * jnp.eye(11)
        sample("k", dist.Poisson(jnp.exp(jnp.linalg.cholesky(K) @ z)), obs=k)

    return process, ["rho", "alpha", "z"]


def columns(draws, names):
    return np.column_stack(
        [np.asarray(draws[name]).reshape(len(draws[name]), -1) for name in names]
    )


def numpyro_guide(guide, case, seed, seconds, preprocess):
    """Train a guide of NumPyro by the evidence bound of one draw, and Adam."""
    import jax
    from numpyro.infer import SVI, Trace_ELBO, autoguide
    from numpyro.optim import Adam

    model, names = numpyro_model(case)
    guide = getattr(autoguide, guide)(model)
    svi = SVI(model, guide, Adam(3e-3), Trace_ELBO())
    state = svi.init(jax.random.PRNGKey(seed))

    @jax.jit
    def advance(state):
        return jax.lax.scan(lambda s, _: svi.stable_update(s), state, None, length=CHUNK)[0]

    jax.block_until_ready(advance(state))  # compiles
    started, steps = time.process_time(), 0
    while time.process_time() - started < seconds:
        state = jax.block_until_ready(advance(state))
        steps += CHUNK
    params = svi.get_params(state)
    transform = guide.get_transform(params)
    z = jax.random.normal(jax.random.PRNGKey(seed + 1), (N_DRAWS, guide.latent_dim))

    def moved(z):
        u = transform(z)
        log_q = -0.5 * (z**2 + math.log(2 * math.pi)).sum() - transform.log_abs_det_jacobian(z, u)
        return u, -guide._potential_fn(guide._unpack_latent(u)) - log_q

    u, ratio = jax.vmap(moved)(z)
    X = columns(jax.vmap(lambda u: guide._postprocess_fn(guide._unpack_latent(u)))(u), names)
    return {"steps": steps, **judged(case, X, np.asarray(ratio))}


def nuts(case, seed, seconds, preprocess):
    """Draw by NUTS; return the seconds to enough effective draws of the slowest column."""
    import jax
    from numpyro.infer import MCMC, NUTS

    model, names = numpyro_model(case)
    sampler = MCMC(
        NUTS(model),
        num_warmup=WARM_UP,
        num_samples=ENOUGH,
        num_chains=N_CHAINS,
        chain_method="vectorized",
        progress_bar=False,
    )

    def timed(method, number):
        started = time.process_time()
        method(jax.random.PRNGKey(seed + number))
        return time.process_time() - started

    timed(sampler.warmup, 0)  # compiles, as the first run does
    to_warm = timed(sampler.warmup, 0)
    timed(sampler.run, 1)
    to_draw = timed(sampler.run, 2)
    X = columns(sampler.get_samples(), names)
    r_hat, ess = diagnostics(X.reshape(N_CHAINS, ENOUGH, -1).transpose(1, 0, 2))
    rate = ess.min() / to_draw
    return {
        "r_hat": r_hat.max(),
        "error": case.error(X),
        "per_second": rate,
        "to_enough": to_warm + ENOUGH / rate,
    }


METHODS = {
    "zuko NSF": partial(torch_peer, zuko_flow, "NSF"),
    "zuko MAF": partial(torch_peer, zuko_flow, "MAF"),
    "zuko MAF, not whitened": partial(torch_peer, zuko_flow, "MAF"),
    "normflows RealNVP": partial(torch_peer, normflows_flow, None),
    "AutoNormal": partial(numpyro_guide, "AutoDiagonalNormal"),  # the same family
    "AutoMultivariateNormal": partial(numpyro_guide, "AutoMultivariateNormal"),
    "AutoIAFNormal": partial(numpyro_guide, "AutoIAFNormal"),
    "AutoBNAFNormal": partial(numpyro_guide, "AutoBNAFNormal"),
    "NUTS": nuts,
}


def measure(name, folder, seed, out):
    """Append our line and the lines of all peers that are missing."""
    case = Case(name, folder)
    done = {
        line["method"]: line for line in read(out) if (line["name"], line["seed"]) == (name, seed)
    }
    if not {*METHODS} - {*done} and OURS in done:
        return
    line, preprocess = ours(case, seed)
    if OURS not in done:
        append(out, {"name": name, "method": OURS, **line})
        print(name, line, flush=True)
    plain, n_free = support_map(case.d, **case.constraints)
    preprocess.n_free = plain.n_free = n_free
    for method, run in METHODS.items():
        if method in done:
            continue
        given = plain if "not whitened" in method else preprocess
        started = time.process_time()
        try:
            found = run(case, seed, line["seconds"], given)
        except Exception as error:  # a peer that fails is a result
            found = {"failed": f"{type(error).__name__}: {error}"[:200]}
        found["seconds"] = time.process_time() - started
        append(out, {"name": name, "method": method, "seed": seed, "d": case.d, **found})
        print(name, method, found, flush=True)


def show(lines):
    """Print the tables of `variational.md`: each has a column for each function."""
    frame = pd.DataFrame(lines)
    # A weighted draw of ours costs nearly nothing beside the fit.
    frame["to_enough"] = frame["to_enough"].where(frame["method"] != OURS, frame["seconds"])
    for value, n_digits in [("ess", 3), ("error", 3), ("to_enough", 1)]:
        table = frame.dropna(subset=value).pivot(index="method", columns="name", values=value)
        table = table.reindex([method for method in [OURS, *METHODS] if method in table.index])
        table = table[[name for name in frame["name"].unique() if name in table]]
        print_table(table, dict.fromkeys(table, n_digits))
        print()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--table", type=Path, help="print the tables of this file and leave")
    parser.add_argument("--names", nargs="*", default=[*KNOWN_NAMES, *POSTERIOR_NAMES])
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.table:
        show(read(args.table))
        return
    import jax

    jax.config.update("jax_enable_x64", True)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for name in args.names:
        measure(name, args.data, args.seed, args.out)


if __name__ == "__main__":
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
    main()
