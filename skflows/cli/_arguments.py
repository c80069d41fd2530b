"""Types of the command-line arguments."""

import argparse
import csv
import os
import re
from pathlib import Path

from ..columns.formats import BLANKS
from ..columns.kinds import KINDS
from ._cells import GAPS
from ._tables import PARTS

THOUSANDS = ".,'\u2019"  # and blanks


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors take one line."""

    def error(self, message):
        self.exit(2, f"skflows: error: {message} (see {self.prog} --help)\n")


def table(text):
    """Return the path of a table to write; with a last slash, the path of a folder's parts."""
    return Path(text, PARTS) if text.endswith(("/", os.sep)) else Path(text)


def positive(text):
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")


def seconds(text):
    try:
        if 0 < float(text) < float("inf"):
            return float(text)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")


def seed(text):
    if text.isdecimal() and int(text) < 2**32:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to {2**32 - 1}")


def contamination(text):
    if text == "auto":
        return text
    try:
        if 0 < float(text) <= 0.5:
            return float(text)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is neither auto nor a number above 0, up to 0.5")


def memory(text):
    if match := re.fullmatch(r"(\d+\.?\d*) ?([kmgt]?)((?<=[kmgt])i)?b?", text.lower()):
        unit = 1024 if match[3] else 1000
        return float(match[1]) * unit ** "_kmgt".index(match[2] or "_")
    raise argparse.ArgumentTypeError(f"{text!r} is not a memory size, such as 500MB or 2GiB")


def names(text):
    # Parsed like a line of the file, so that a name with a comma can be quoted.
    names = list(dict.fromkeys(next(csv.reader([text], skipinitialspace=True))))
    if not names:
        raise argparse.ArgumentTypeError("no column is given")
    return names


def listed_name(name):
    """Return the name of a column as `names` reads it."""
    needs_quotes = name.startswith(" ") or any(mark in name for mark in ',"\r\n')
    return '"{}"'.format(name.replace('"', '""')) if needs_quotes else name


def kind(text):
    """Return a column and its kind with arguments, from ``COLUMN=KIND,ARGUMENT,...``."""
    name, sign, rest = text.rpartition("=")
    kind, *arguments = next(csv.reader([rest], skipinitialspace=True), [""])
    if not sign or not name or kind not in KINDS:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not COLUMN=KIND, where KIND is one of {', '.join(KINDS)}"
        )
    return name, (kind, *map(number_or_text, arguments))


def thousands(text):
    if text and text in THOUSANDS + BLANKS:
        return text
    marks = ", ".join(map(repr, THOUSANDS))
    raise argparse.ArgumentTypeError(f"{text!r} is no mark of thousands: give {marks} or a blank")


def given(text):
    """Return a column and the text of its value, from ``COLUMN=VALUE``."""
    name, sign, value = text.partition("=")
    if not name or not sign or value in GAPS:
        raise argparse.ArgumentTypeError(f"{text!r} is not COLUMN=VALUE, with a known value")
    return name, value


def of_fit(text):
    raise argparse.ArgumentTypeError(
        "a model keeps the kinds and forms of its columns: give this option to skflows fit"
    )


def number_or_text(text):
    """Return an argument of a kind: None if it is empty."""
    try:
        return float(text)
    except ValueError:
        return text or None


def fraction(text):
    try:
        if 0 < float(text) < 1:
            return float(text)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is not a number between 0 and 1")
