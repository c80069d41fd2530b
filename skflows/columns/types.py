"""Types of what public methods take and return."""

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Table: TypeAlias = ArrayLike  # rows: an array, or a DataFrame, which is one to NumPy
Weights: TypeAlias = ArrayLike | None  # one for each row
RandomState: TypeAlias = int | np.random.RandomState | None
Floats: TypeAlias = NDArray[np.float64]
Labels: TypeAlias = NDArray[np.int64]
Flags: TypeAlias = NDArray[np.bool_]
if TYPE_CHECKING:
    import pandas as pd

    Rows: TypeAlias = NDArray | pd.DataFrame
else:  # types are read without pandas too
    Rows = NDArray | Any
