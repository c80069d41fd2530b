"""A table that does not fit into memory, as rows of numbers in a temporary file."""

import math
import tempfile
from contextlib import contextmanager

import numpy as np

from ..callbacks._run import random_state_of
from ..density import ARCHITECTURES, FlowDensity
from ._columns import Gaps, left_out, numbers, numeric_columns, select
from ._progress import with_progress
from ._tables import fit_bytes, import_pandas, is_standard

BLOCK_ROWS = 2**17  # that are read at once
GOLDEN_RATIO = 0.6180339887
LEAST_ROWS = 1000
HELD_OUT = 0.1  # as many rows as this fraction of a chunk
MAX_HELD_OUT = 100_000


@contextmanager
def stored_rows(args, table, model):
    """Yield the `StoredRows` of a table's numeric columns, without rows with missing values."""
    if not isinstance(model, FlowDensity):
        raise ValueError(
            f"a fit to {args.data} takes about {table.n_bytes / 1e6:.0f} MB, more than "
            f"--memory-limit, and {type(model).__name__} needs all rows at once: raise the limit, "
            f"or choose --estimator among {', '.join(ARCHITECTURES)}"
        )
    random_state = random_state_of(model)
    folder = None if is_standard(args.output) else args.output.resolve().parent
    with tempfile.TemporaryFile(dir=folder) as file:
        names, gaps, held_out = None, Gaps(args.data), []
        needed = args.columns and [*args.columns, *left_out(args)]
        for batch in with_progress(table, args.output, needed):
            if names is None:
                first = f"the first {len(batch)} rows of {args.data}"
                frame = numeric_columns(batch, first, args.columns, left_out(args))
                names = [*frame]
                n_rows = int(args.memory_limit / fit_bytes(len(names)))
                if n_rows < LEAST_ROWS:
                    raise ValueError(
                        f"--memory-limit leaves {n_rows} rows of {len(names)} columns at once; "
                        f"at least {LEAST_ROWS} are needed: raise it"
                    )
                share = min(HELD_OUT, min(HELD_OUT * n_rows, MAX_HELD_OUT) / table.n_rows)
            frame = gaps.left_out_of(select(batch, names, args.data))
            rows = numbers(frame, args.data).to_numpy()
            is_held_out = random_state.uniform(size=len(rows)) < share
            held_out.append(rows[is_held_out])
            file.write(np.ascontiguousarray(rows[~is_held_out]).tobytes())
        gaps.report()
        seed = random_state.randint(2**31 - 1)
        yield StoredRows(file, names, np.concatenate(held_out), n_rows, seed)


class StoredRows:
    """Rows of numbers in a file, read in parts that are spread over all of it.

    In each pass, almost every row is in one part, with other rows than in the pass before: the
    order of the table does not matter.

    Parameters
    ----------
    file : binary file
        The rows, in float64.
    names : list of str
        Their columns.
    held_out : ndarray
        Further rows.
    n_rows : int
        Largest number of rows of a part.
    seed : int
        Seed of the parts.
    """

    def __init__(self, file, names, held_out, n_rows, seed):
        self.file, self.names, self.seed = file, names, seed
        self.n = file.tell() // (8 * len(names))
        self.n_parts = math.ceil(self.n / n_rows)
        self.size = self.n // self.n_parts
        self.shape = self.n + len(held_out), len(names)
        self.held_out = held_out

    def chunk(self, i):
        """Return the i-th part."""
        number, part = divmod(i, self.n_parts)
        rng = np.random.default_rng([self.seed, number])
        step = int(GOLDEN_RATIO * self.n) + int(rng.integers(self.n // 100 + 1))
        while math.gcd(step, self.n) > 1:
            step += 1
        places = np.arange(part * self.size, (part + 1) * self.size)
        places = np.sort((rng.integers(self.n) + step * places) % self.n)
        rows = np.empty((self.size, len(self.names)))
        for start in range(0, self.n, BLOCK_ROWS):
            first, last = np.searchsorted(places, [start, start + BLOCK_ROWS])
            self.file.seek(start * 8 * len(self.names))
            block = self.file.read(BLOCK_ROWS * 8 * len(self.names))
            block = np.frombuffer(block).reshape(-1, len(self.names))
            rows[first:last] = block[places[first:last] - start]
        return rows

    def frame(self, rows):
        """Return rows with the names of the columns."""
        return import_pandas().DataFrame(rows, columns=self.names)
