"""Sections of files: their bytes, and the errors of damaged ones."""

import struct

import numpy as np

SECTION = struct.Struct("<I")  # bytes of what follows, a number of rows, or a checksum
# No short stream becomes a large table: beyond the free values, a byte stands for this many.
FREE_VALUES, VALUES_PER_BYTE = 2**20, 128


def check(is_so, otherwise):
    """Raise the error of damaged data, with what is wrong with it, unless all is well."""
    if not is_so:
        raise ValueError(f"data is damaged, although it has the right checksum: {otherwise}.")


def least_length(n_values):
    """Return the fewest bytes before the checksum of a stream of many values."""
    return (n_values - FREE_VALUES) // VALUES_PER_BYTE


class Reader:
    """Sections of bytes from a place on, one after another."""

    def __init__(self, data, offset):
        self.data, self.offset = data, offset

    def take(self, length):
        """Return the next bytes."""
        self.offset += length
        check(self.offset <= len(self.data), "it ends early")
        return self.data[self.offset - length : self.offset]

    def number(self, kind):
        """Return the next number of a kind."""
        return kind.unpack(self.take(kind.size))[0]

    def words(self):
        """Return the 32-bit words of the next section, whose length precedes it."""
        content = self.take(self.number(SECTION))
        check(len(content) % 4 == 0, "a section has other bytes")
        return np.frombuffer(content, "<u4").astype(np.uint32)

    def end(self, n_values):
        """Check that nothing follows but the padding of a stream of many values."""
        padding = bytes(max(0, least_length(n_values) - self.offset))
        check(self.data[self.offset :] == padding, "it does not end where it should")


def section(words):
    """Return 32-bit words as a section of bytes."""
    content = words.astype("<u4").tobytes()
    return SECTION.pack(len(content)) + content
