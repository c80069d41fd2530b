"""Draw ``docs/_static/benchmark.svg``: the lead of `AutoDensity` over the best of its peers.

Usage: ``python docs/make_benchmark_picture.py``; a build of the documentation does the same. The
numbers come from the stored lines in ``benchmarks/results``, as does the first table of
``benchmarks/quality.md``.
"""

import re
import sys
from pathlib import Path

from matplotlib.figure import Figure

DOCS = Path(__file__).parent
BENCHMARKS = DOCS.parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from protocol import leads, read  # noqa: E402  (the import needs the path above)


def main():
    ours, peers = (read(BENCHMARKS / "results" / f"{name}.jsonl") for name in ("quality", "peers"))
    found = leads(ours + peers, peers=sorted({line["method"] for line in peers}))
    rows = sorted(found, key=lambda row: row["lead"])
    names = [f"{re.sub(r'^[0-9]+_', '', row['set'])} ({row['n']:,} x {row['d']})" for row in rows]
    figure = Figure(figsize=(5.5, 5.5), layout="constrained")
    ax = figure.subplots()
    ax.errorbar(
        [row["lead"] for row in rows],
        names,
        xerr=[row["error"] for row in rows],
        fmt="o",
        color="#3f90da",
        ecolor="#8a8a8a",
        markersize=5,
    )
    ax.set(xscale="log", xlabel="lead in nats per row", ylim=(-0.7, len(rows) - 0.3))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.tick_params(axis="y", length=0, labelsize=9)
    ax.grid(axis="x", color="#dddddd")
    ax.set_axisbelow(True)
    for side in ("left", "top", "right"):
        ax.spines[side].set_visible(False)
    figure.savefig(DOCS / "_static" / "benchmark.svg")


if __name__ == "__main__":
    main()
