"""Errors of damaged files, and the fewest bytes of many rows."""

# No short stream becomes a large table: beyond the free values, a byte stands for this many.
FREE_VALUES, VALUES_PER_BYTE = 2**20, 128


def check(is_so, otherwise):
    """Raise the error of damaged data, with what is wrong with it, unless all is well."""
    if not is_so:
        raise ValueError(f"data is damaged, although it has the right checksum: {otherwise}.")


def least_length(n_values):
    """Return the fewest bytes of a stream of many values."""
    return max(0, (n_values - FREE_VALUES) // VALUES_PER_BYTE)
