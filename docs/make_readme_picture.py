"""Draw ``docs/_static/readme.png``: rows of a table, synthetic rows, and odd ones.

Usage: ``python docs/make_readme_picture.py``. It takes two minutes.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import pandas as pd

from skflows import TableDensity
from skflows.cli import main as skflows

DOCS = Path(__file__).parent
TABLE = DOCS.parent / "examples" / "conditional" / "abalone.csv"
LENGTHS = ["length", "diameter", "height"]
WEIGHTS = ["whole_weight", "shucked_weight", "shell_weight"]
SHOWN = ["sex", *LENGTHS, *WEIGHTS, "rings"]  # all but one, for lack of space
SYNTHETIC, ODD = "#fff3e0", "#f4a259"


def find_outliers(path):
    """Return the rows that ``skflows outliers`` flags, the oddest first, and the other rows."""
    with TemporaryDirectory() as folder:
        output = Path(folder) / "flagged.csv"
        skflows(["outliers", str(path), "-o", str(output), "--random-state", "0"])
        table = pd.read_csv(output)
    is_odd = table["outlier"] == 1
    return table[is_odd].sort_values("score"), table.loc[~is_odd, pd.read_csv(path).columns]


def reason(density, row):
    """Return why a row is odd: its oddest value, and what is usual given its other values."""
    column = row["oddest_column"]
    others = row[density.feature_names_in_].drop(column).to_frame().T
    low, high = (bound[0] for bound in density.predict_distribution(column, others).interval(0.99))
    usual = f"of rows with its other\nvalues, 99 % have {low:g} to {high:g}"
    return f"{name(column)} is {row[column]:g}; {usual}"


def name(column):
    return column.replace("_", " ")


def texts(rows, columns):
    """Return the cells of rows as texts."""
    return [[row[c] if isinstance(row[c], str) else f"{row[c]:g}" for c in columns] for row in rows]


def draw(ax, title, columns, cells, colours, widths):
    """Draw a table with its title."""
    ax.axis("off")
    ax.set_title(title, loc="left", fontsize=11, fontweight="bold")
    labels = [name(c).replace(" ", "\n") for c in columns]
    drawn = ax.table(
        cells, colLabels=labels, cellColours=colours, colWidths=widths, bbox=[0, 0, 1, 1]
    )
    drawn.auto_set_font_size(False)
    drawn.set_fontsize(9)
    for (line, column), cell in drawn.get_celld().items():
        cell.set(edgecolor="#d5dade", linewidth=0.6)
        if line == 0:
            cell.set(facecolor="#f0f2f4", height=cell.get_height() * 1.7)
        is_reason = columns[column] == ""
        cell.set_text_props(horizontalalignment="left" if is_reason else "center")
        cell.PAD = 0.02 if is_reason else 0.1


def main():
    flagged, usual = find_outliers(TABLE)
    density = TableDensity(random_state=0).fit(usual)
    odd = [row for _, row in flagged.head(4).iterrows()]
    figure = plt.figure(figsize=(11, 4.9), dpi=110, layout="constrained")
    axes = figure.subplot_mosaic([["rows", "synthetic"], ["odd", "odd"]], height_ratios=[1.25, 1])
    for key, title, rows, colour in (
        ("rows", "Rows of a table of abalone (sea snails)", usual.head(6), "white"),
        ("synthetic", "Synthetic rows", density.sample(6, random_state=0), SYNTHETIC),
    ):
        cells = texts([row for _, row in rows.iterrows()], SHOWN)
        draw(axes[key], title, SHOWN, cells, [[colour] * len(SHOWN)] * len(cells), None)
    columns = [*SHOWN, ""]
    cells = [
        [*line, reason(density, row)] for line, row in zip(texts(odd, SHOWN), odd, strict=True)
    ]
    colours = [[ODD if c == row["oddest_column"] else "white" for c in columns] for row in odd]
    draw(axes["odd"], "Its oddest rows, and why", columns, cells, colours, [0.08] * 8 + [0.36])
    figure.savefig(DOCS / "_static" / "readme.png")


if __name__ == "__main__":
    main()
