"""What the arguments of the command line may be."""

import argparse
import csv


class Parser(argparse.ArgumentParser):
    """One that says what is wrong in a line."""

    def error(self, message):
        self.exit(2, f"skflows: error: {message} (see {self.prog} --help)\n")


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


def names(text):
    # Read as a line of the file would be: a name with a comma stands in quotes.
    names = list(dict.fromkeys(next(csv.reader([text], skipinitialspace=True))))
    if not names:
        raise argparse.ArgumentTypeError("no column is named")
    return names


def fraction(text):
    """A number between 0 and 1."""
    try:
        if 0 < float(text) < 1:
            return float(text)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is not a number between 0 and 1")
