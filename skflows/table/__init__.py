"""The density of a table as it is: missing values, categories, and any conditional."""

from ._dates import DateDistribution
from ._density import TableDensity
from ._imputer import TableImputer
from ._queries import ConditionalTable

__all__ = ["ConditionalTable", "DateDistribution", "TableDensity", "TableImputer"]
