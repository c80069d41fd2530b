"""Write the tables of the pages from the stored lines.

    python benchmarks/pages.py
    python benchmarks/pages.py --check  # only say whether they differ

A table below a comment ``<!-- table K of: COMMAND -->`` is the K-th that the command prints.
"""

import argparse
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent
TABLE = r"(?:^\|.*\n)+"
MARKED = re.compile(rf"^<!-- table (\d+) of: (.+) -->\n\n({TABLE})", re.MULTILINE)


@cache
def printed(command):
    """Return the tables that a command prints, which is run in this folder."""
    text = subprocess.run(
        [sys.executable, *command.split()], cwd=FOLDER, check=True, capture_output=True, text=True
    ).stdout
    return re.findall(TABLE, text, re.MULTILINE)


def anew(match):
    """Return a marked table as it is printed now."""
    number, command, table = match.groups()
    return match[0].removesuffix(table) + printed(command)[int(number) - 1]


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="fail if a page differs")
    args = parser.parse_args()
    pages = {path: path.read_text("utf-8") for path in sorted(FOLDER.glob("*.md"))}
    new = {path: MARKED.sub(anew, text) for path, text in pages.items()}
    differ = [path for path in pages if new[path] != pages[path]]
    for path in [] if args.check else differ:
        path.write_text(new[path], "utf-8")
    print(f"differ from the stored lines: {[path.name for path in differ]}")
    sys.exit(bool(args.check and differ))


if __name__ == "__main__":
    main()
