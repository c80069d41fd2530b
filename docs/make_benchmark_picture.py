"""Draw ``docs/_static/benchmark.svg``: the lead of `AutoDensity` over the best of its peers.

Usage: ``python docs/make_benchmark_picture.py``; a build of the documentation does the same. The
numbers come from the first table in ``benchmarks/quality.md``.
"""

import re
from pathlib import Path

from matplotlib.figure import Figure

DOCS = Path(__file__).parent
# | 14_glass (142, 7) | 3 | -0.16 | -5.50 zuko-NSF5 (of 7) | 5.34 (3.56) |
LEAD = re.compile(
    r"(?m)^\| (\d+_)?(?P<table>\S+) \((?P<rows>\d+), (?P<columns>\d+)\) \| \d+ \| \S+ "
    r"\| \S+ \S+ \(of \d\) \| (?P<lead>\S+) \((?P<error>\S+)\) \|$"
)


def main():
    page = (DOCS.parent / "benchmarks" / "quality.md").read_text(encoding="utf-8")
    rows = sorted(LEAD.finditer(page), key=lambda row: float(row["lead"]))
    names = [f"{row['table']} ({int(row['rows']):,} x {row['columns']})" for row in rows]
    figure = Figure(figsize=(5.5, 5.5), layout="constrained")
    ax = figure.subplots()
    ax.errorbar(
        [float(row["lead"]) for row in rows],
        names,
        xerr=[float(row["error"]) for row in rows],
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
