"""Write the tables of the pages from the stored lines, and check the pages.

    python benchmarks/pages.py
    python benchmarks/pages.py --check  # only say what is wrong

A table below a comment ``<!-- table K of: COMMAND -->`` is the K-th that the command prints; below
``<!-- table K, last N rows, of: COMMAND -->``, it is the end of that. The line below ``<!-- commits
of: FILES -->`` says at which commits their lines were measured.
"""

import argparse
import io
import json
import re
import runpy
import sys
from collections import Counter
from contextlib import chdir, redirect_stdout
from functools import cache
from pathlib import Path
from unittest.mock import patch

FOLDER = Path(__file__).parent
TABLE = r"(?:^\|.*\n)+"
MARKED = re.compile(
    rf"^<!-- table (\d+)(?:, last (\d+) rows,)? of: (.+) -->\n\n({TABLE})", re.MULTILINE
)
COMMITS = re.compile(r"^<!-- commits of: (.+) -->\n\n(.+\n)", re.MULTILINE)
BLOCK = re.compile(r"^```.*?^```\n", re.MULTILINE | re.DOTALL)
FIGURE = re.compile(r"\d+\.\d+")
WORDS, LINES, SCREENS = 350, 45, 3  # a screen has so many words, or lines of tables and code
ENTRY = 60  # words of an entry of tried.md


@cache
def printed(command):
    """Return the tables that a command prints, which is run in this folder."""
    script, *arguments = command.split()
    text = io.StringIO()
    with chdir(FOLDER), redirect_stdout(text), patch.object(sys, "argv", [script, *arguments]):
        runpy.run_path(script, run_name="__main__")
    return re.findall(TABLE, text.getvalue(), re.MULTILINE)


def table(match):
    """Return a marked table as it is printed now."""
    number, n_rows, command, old = match.groups()
    header, rule, *rows = printed(command)[int(number) - 1].splitlines(keepends=True)
    shown = rows[-int(n_rows) :] if n_rows else rows
    return match[0].removesuffix(old) + "".join([header, rule, *shown])


def commits(match):
    """Return a sentence that says at which commits the lines of some files were measured."""
    said = []
    for name in match[1].split():
        text = (FOLDER / name).read_text("utf-8")
        lines = text.splitlines() if name.endswith(".jsonl") else [text]
        # Figures of others have a source instead of a commit.
        lines = [line for line in map(json.loads, lines) if "source" not in line]
        count = Counter(line["commit"] for line in lines if line.get("commit"))
        texts = [f"{n} measured at {commit}" for commit, n in count.items()]
        # Older lines name the commit that stored them instead.
        if stored := [line["stored_in"] for line in lines if not line.get("commit")]:
            n = len(set(stored))
            which = stored[-1] if n == 1 else f"{n} commits, the last {stored[-1]}"
            texts.append(f"{len(stored)} stored in {which}")
        said.append(f"`{name}`, {', '.join(texts)}")
    return match[0].removesuffix(match[2]) + f"Stored lines: {'; '.join(said)}.\n"


def generated(text):
    """Return a page with its tables and commits as the stored lines have them."""
    return COMMITS.sub(commits, MARKED.sub(table, text))


def is_among(figure, values):
    """Return whether one of the values rounds to a figure, perhaps in per cent."""
    n_digits = len(figure.partition(".")[2])
    return any(f"{x:.{n_digits}f}" == figure for value in values for x in (value, 100 * value))


def faults(name, text):
    """Return what is wrong with a page."""
    if name == "README":
        return []
    tables = [match[4] for match in MARKED.finditer(text)]
    rest = re.sub(r"<!--.*-->", "", MARKED.sub("", text))
    prose = BLOCK.sub("", rest)
    found = []
    if re.search(TABLE, rest, re.MULTILINE):
        found.append("has a table without a command that prints it")
    if name == "tried":  # a list that grows, of runs that are not stored
        entries = [entry.partition("\n\n")[0] for entry in prose.split("\n- ")[1:]]
        long = [entry for entry in entries if len(entry.split()) > ENTRY]
        return found + [f"has more than {ENTRY} words in: {entry}" for entry in long]
    n_lines = sum(block.count("\n") for block in [*tables, *BLOCK.findall(rest)])
    n_screens = len(prose.split()) / WORDS + n_lines / LINES
    if n_screens > SCREENS:
        found.append(f"has {n_screens:.1f} screens instead of {SCREENS}")
    if not COMMITS.search(text):
        found.append("does not say at which commits its lines were measured")
    figures = FIGURE.findall(re.sub(r"`[^`]*`|Stored lines.*", "", prose))
    values = {*map(float, FIGURE.findall("".join(tables)))}
    if missing := sorted({figure for figure in figures if not is_among(figure, values)}):
        found.append(f"has figures that none of its tables has: {', '.join(missing)}")
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    args = parser.parse_args()
    wrong = []
    for path in sorted(FOLDER.glob("*.md")):
        text = path.read_text("utf-8")
        new = generated(text)
        if args.check and new != text:
            wrong.append(f"{path.name} differs from the stored lines")
        elif new != text:
            path.write_text(new, "utf-8")
        wrong += [f"{path.name} {fault}" for fault in faults(path.stem, new)]
    print("\n".join(wrong) or "The pages agree with the stored lines.")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    sys.path.insert(0, str(FOLDER))
    main()
