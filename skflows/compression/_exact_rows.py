"""Rows of whole numbers as bytes: a few by other codecs, which give bits for the flow."""

import bz2
import lzma
import math
import zlib
from bisect import bisect_left
from functools import cache

import numpy as np

from ._bits import CHUNK, Stack
from ._checks import check
from ._images import FORMATS, image_files, rows_of_file

N_GENERAL = 3  # codecs, zlib, bz2 and LZMA; codecs of images follow
WHOLE = "u1", "<u2", "<i4"
DTYPES = *WHOLE, *WHOLE, "<f8"  # of numbers of values; then of the values themselves
DISTANCES = 0, 1, 3  # of bytes whose differences are coded
MOST_VALUES = 2**18  # that the flow maps at once
POWERS = 16  # of 2, that the numbers of such rows are
BITS_TO_MAP = 14  # that a value pops before it pushes a latent coordinate, at most
BITS_OF_CHUNK = 16  # more, for each value of a chunk


class ExactRows:
    """The code of rows by an `IntegerFlow`, general codecs and, given a shape, image formats."""

    def __init__(self, flow, shape):
        self.flow, self.shape = flow, shape
        self.pitch = 1 if shape is None else math.prod(shape[1:])  # pixels above each other

    def encoded(self, X):
        """Return the number of rows that the flow maps, 32-bit words, and the CRC-32 of all rows.

        Other codecs take rows with values outside the lattices of their columns.
        """
        d = X.shape[1]
        number, X, is_near, has_place = (
            np.concatenate(each) for each in zip(*map(self.flow.numbers, blocks_of(X)), strict=True)
        )
        mapped = np.flatnonzero((is_near & has_place).all(axis=1))

        @cache
        def words_beside(n_mapped):
            """Return the shortest code of the rows that the flow does not map, and the CRC-32."""
            alone = ~np.isin(np.arange(len(X)), mapped[len(mapped) - n_mapped :])
            found = [narrowest(X[alone], len(WHOLE))]
            if is_near[alone].all():
                found.insert(0, narrowest(number[alone], 0))
            kind, rows = min(found, key=lambda each: each[1].itemsize)
            head = (np.packbits(alone).tobytes() if n_mapped else b"") + bytes([kind])
            content, most = head + rows.tobytes(), most_bytes(len(X), d, alone.sum())
            codes = packed(content, most, self.pitch * rows.itemsize)
            for i, file in image_files(rows, self.shape, slowly=not n_mapped):
                codes.append(bytes([N_GENERAL + i, 0]) + zlib.compress(head, 9) + file)
            code = min(codes, key=len)
            words = np.frombuffer(code + bytes(-len(code) % 4), "<u4").astype(np.uint32)
            return words, zlib.crc32(content, zlib.crc32(number[~alone].tobytes()))

        def is_enough(n):
            return most_values(32 * len(words_beside(len(mapped) - n)[0])) >= d

        most = 1  # rows that give their bits
        while most < len(mapped) and not is_enough(most):
            most *= 2
        most = min(most, len(mapped))
        by_flow, start = mapped[bisect_left(range(most), True, key=is_enough) :], 0
        words, of_all = words_beside(len(by_flow))
        stack = Stack(words)
        try:
            while start < len(by_flow):
                most = max(most_values(stack.coder.num_bits()) // d, 1)
                power = min(len(by_flow) - start, most_rows(d), most).bit_length() - 1
                self.flow.push(number[by_flow[start : start + 2**power]], stack)
                stack.push(np.array([power]), np.array([POWERS]))
                start += 2**power
            codes = [(len(by_flow), stack.coder.get_compressed(), of_all)]
        except OverflowError:  # rows that the flow maps too far away
            codes = []
        words, of_all = words_beside(0)
        codes.append((0, Stack(words).coder.get_compressed(), of_all))
        return min(codes, key=lambda code: len(code[1]))

    def decoded(self, words, n, n_mapped):
        """Return the n rows that `encoded` wrote, and their CRC-32."""
        d = len(self.flow.least)
        blocks, n_left = [np.empty((0, d), dtype=np.int64)], n_mapped
        try:
            stack = Stack(words, is_decoder=True)
            while n_left:
                size = 2 ** int(stack.pop(np.array([POWERS]))[0])
                if size > min(n_left, most_rows(d)):
                    raise ValueError(f"{size} rows come together")
                blocks.append(self.flow.pop(size, stack))
                n_left -= size
            code = stack.coder.get_compressed(unseal=True).astype("<u4").tobytes()
        except (AssertionError, OverflowError, ValueError) as error:
            check(False, error)
        content, file = unpacked(code, most_bytes(n, d, n - n_mapped))
        if code[0] >= N_GENERAL:
            content += rows_of_file(file, code[0] - N_GENERAL, n - n_mapped, self.shape)
        n_flags = -(-n // 8) if n_mapped else 0
        check(len(content) > n_flags and content[n_flags] < len(DTYPES), "rows have no kind")
        alone = np.ones(n, dtype=bool)
        if n_mapped:
            alone = np.unpackbits(np.frombuffer(content[:n_flags], np.uint8))[:n].astype(bool)
        listed, kind = content[n_flags] < len(WHOLE), np.dtype(DTYPES[content[n_flags]])
        size = (n - n_mapped) * d * kind.itemsize
        check(
            len(content) - n_flags - 1 == size and alone.sum() == n - n_mapped, "it has other rows"
        )
        rows = np.frombuffer(content[n_flags + 1 :], kind).reshape(-1, d)
        number = np.zeros((n, d), dtype=np.int64)
        number[~alone] = np.concatenate(blocks[::-1])
        if listed:
            number[alone] = rows
        X = np.concatenate([*map(self.flow.values, blocks_of(number))])
        if not listed:
            X[alone] = rows
        return X, zlib.crc32(content, zlib.crc32(number[~alone].tobytes()))


def narrowest(rows, kind):
    """Return the first kind from this one on that holds the rows exactly, and the rows in it."""
    with np.errstate(invalid="ignore"):
        while (rows.astype(DTYPES[kind]) != rows).any():
            kind += 1
    return kind, rows.astype(DTYPES[kind])


def blocks_of(rows):
    """Return the rows in blocks, to bound the memory of points of their cells."""
    size = most_rows(rows.shape[1])
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def most_values(n_bits):
    """Return how many values the flow maps at once with these bits, without an empty stack."""
    some = n_bits // (BITS_TO_MAP + BITS_OF_CHUNK)
    return max(min(some, CHUNK), (n_bits - BITS_OF_CHUNK * CHUNK) // BITS_TO_MAP)


def most_rows(d):
    """Return how many rows of d columns the flow maps at once."""
    return min(max(MOST_VALUES // d, 1), 2**POWERS - 1)


def most_bytes(n, d, n_alone):
    """Return the bytes of rows without the flow, of n rows of d columns, at most."""
    return 8 * int(n_alone) * d + -(-n // 8) + 1


def packed(content, most, pitch):
    """Return codes of bytes, which say where they end."""
    codes = [bytes([0, 0]) + zlib.compress(content, 9), bytes([1, 0]) + bz2.compress(content)]
    for distance in sorted({*DISTANCES, min(pitch, 255)}):
        code = lzma.compress(content, lzma.FORMAT_RAW, filters=lzma_filters(distance, most))
        codes.append(bytes([2, distance]) + code)
    return codes


def unpacked(code, most):
    """Return the bytes of a code, at most so many, and what comes after it."""
    check(len(code) > 1 and code[0] < N_GENERAL + len(FORMATS), "rows have no code")
    try:
        decoder = (
            zlib.decompressobj,
            bz2.BZ2Decompressor,
            lambda: lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=lzma_filters(code[1], most)),
        )[code[0] if code[0] < N_GENERAL else 0]()  # flags before an image are a code of zlib
        content = decoder.decompress(code[2:], most + 1)
    except (zlib.error, OSError, ValueError, lzma.LZMAError) as error:
        check(False, error)
    check(decoder.eof and len(content) <= most, "rows have another code")
    return content, decoder.unused_data


def lzma_filters(distance, most):
    """Return the filters of LZMA for at most so many bytes, after differences if there are any."""
    size = 2 ** min(max(most.bit_length(), 12), 24)
    last = {"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": size, "pb": 0}
    return [{"id": lzma.FILTER_DELTA, "dist": distance}, last] if distance else [last]
