"""The density of a table as it is: missing values, categories, and any conditional."""

from ._density import TableDensity
from ._imputer import TableImputer
from ._queries import ConditionalTable

__all__ = ["ConditionalTable", "TableDensity", "TableImputer"]
