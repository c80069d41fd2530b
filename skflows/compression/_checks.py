"""The error of damaged files."""


def check(is_so, otherwise):
    """Raise the error of damaged data, with what is wrong with it, unless all is well."""
    if not is_so:
        raise ValueError(f"data is damaged, although it has the right checksum: {otherwise}.")
