"""Processor time and memory of the commands that read a table in batches.

    python benchmarks/commands.py

Tables of 4 columns are written as Parquet, and each command runs in a process of its own, whose
processor time and peak memory (`resource`) are printed. A table of 1,000 rows shows what Python and
the libraries take.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet
from quality import machine

from skflows import ConditionalDensity, FlowRegressor, NSFDensity, RealNVPDensity, TableDensity

ROW_GROUP = 1_000_000
FIT = "fit {table} -o m.skflows --estimator realnvp --memory-limit 300MB --max-iter 5"
OUTLIERS = "outliers {table} -o flags.parquet --reference small.parquet --memory-limit 1MB"
COMMANDS = {  # by which argument sets their number of rows
    "small, score": ("rows", "score small.skflows {table} -o scores.parquet"),
    "small, score, folder": ("rows", "score small.skflows {table} -o scores/"),
    "fit --memory-limit 300MB": ("rows", FIT),
    "default NSF, score": ("score_rows", "score nsf.skflows {table} -o scores.parquet"),
    "outliers --memory-limit 1MB": ("other_rows", OUTLIERS),
    "predict": ("other_rows", "predict target.skflows {table} -o predicted.parquet"),
    "impute": ("other_rows", "impute table.skflows {gaps} -o complete.parquet"),
}

# In a small process: the peak of a new process begins with the memory of the one that starts it.
MEASURE = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(usage.ru_utime + usage.ru_stime, usage.ru_maxrss)
"""


def write(path, n, has_gaps, seed=0):
    """Write a table of dependent columns, of which one may have gaps."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(0).normal(size=(4, 4))
    writer = None
    for start in range(0, n, ROW_GROUP):
        rows = rng.normal(size=(min(ROW_GROUP, n - start), 4)).astype(np.float32) @ mixing
        frame = pd.DataFrame(rows.astype(np.float32), columns=[*"abcd"])
        if has_gaps:
            frame.loc[::10, "d"] = None
        table = pyarrow.Table.from_pandas(frame, preserve_index=False)
        writer = writer or pyarrow.parquet.ParquetWriter(path, table.schema)
        writer.write_table(table)
    writer.close()


def save_models():
    """Fit the models to a small table, and save them."""
    rows = pd.read_parquet("small.parquet")
    small = RealNVPDensity(n_transforms=2, hidden_layer_sizes=16, max_iter=5, random_state=0)
    small.fit(rows).save("small.skflows")
    NSFDensity(max_iter=5, random_state=0).fit(rows).save("nsf.skflows")
    flow = ConditionalDensity(NSFDensity(max_iter=5, random_state=0))
    FlowRegressor(flow, random_state=0).fit(rows[[*"abc"]], rows["d"]).save("target.skflows")
    rows.loc[::10, "d"] = None
    TableDensity(max_iter=5, time_limit=20, random_state=0).fit(rows).save("table.skflows")


def measured(command):
    """Return processor seconds and peak memory in MiB of a command."""
    line = [sys.executable, "-c", MEASURE, sys.executable, "-m", "skflows", *command.split()]
    found = subprocess.run(line, check=True, capture_output=True, text=True)
    seconds, kibibytes = map(float, found.stdout.split())
    return seconds, kibibytes / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000_000)
    parser.add_argument("--score-rows", type=int, default=3_000_000)
    parser.add_argument("--other-rows", type=int, default=50_000)
    parser.add_argument("--commands", nargs="+", default=list(COMMANDS), choices=list(COMMANDS))
    args = parser.parse_args()
    os.environ["PYTHONPATH"] = str(Path(__file__).parents[1])
    print("| command | rows | processor s | rows per second | peak MiB |\n" + "|---" * 5 + "|")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        write("small.parquet", 1000, has_gaps=False, seed=1)  # a --reference must differ
        save_models()
        for name in args.commands:
            which, command = COMMANDS[name]
            for n in (1000, getattr(args, which)):
                if n == 1000 and "fit" in name:
                    continue
                has_gaps = "{gaps}" in command
                path = Path(f"gaps{n}.parquet" if has_gaps else f"{n}.parquet")
                if not path.exists():
                    write(path, n, has_gaps)
                seconds, peak = measured(command.format(table=path, gaps=path))
                figures = f"{seconds:.1f} | {n / seconds:,.0f} | {peak:.0f}"
                print(f"| {name} | {n:,} | {figures} |", flush=True)
                shutil.rmtree("scores", ignore_errors=True)
    print(f"\nMachine: {machine()}")


if __name__ == "__main__":
    main()
