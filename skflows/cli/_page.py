"""The HTML page of a report, in one file: its style, sortable tables and pictures."""

import base64
import io
from html import escape

from .. import __version__
from ..inspection._common import check_matplotlib
from ..persistence.atomic import replace_file
from ._tables import check_writable, is_standard, say

PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --text: #1c2126; --page: #fff; --soft: #55606a; --line: #d5dade;
  --odd: #fbd3b0; --note: #fdf8e3; }}
@media (prefers-color-scheme: dark) {{ :root {{ --text: #e6e9ec; --page: #14181c; --soft: #a8b2bb;
  --line: #3a424a; --odd: #7a3d0c; --note: #332c10; }} }}
body {{ font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--page);
  max-width: 75rem; margin: 2rem auto; padding: 0 1rem; }}
h1 {{ font-size: 1.7rem; margin-bottom: 0; }}
h2 {{ font-size: 1.2rem; margin-top: 2.2rem; border-bottom: 1px solid var(--line); }}
.lead {{ font-size: 1.15rem; }}
.pictures {{ display: flex; flex-wrap: wrap; gap: 1rem; align-items: flex-start; }}
figure {{ margin: 0; flex: 1 1 26rem; min-width: 0; }}
figcaption {{ color: var(--soft); font-size: .9rem; }}
img {{ max-width: 100%; height: auto; background: #fff; }}
.scroll {{ overflow-x: auto; }}
table {{ border-collapse: collapse; width: 100%; font-size: .92rem; }}
th, td {{ text-align: left; padding: .3rem .4rem; border-bottom: 1px solid var(--line);
  vertical-align: top; }}
th {{ vertical-align: bottom; }}
td.number, th.number {{ text-align: right; font-variant-numeric: tabular-nums; }}
tr.flagged td:first-child {{ border-left: 4px solid #e76300; }}
td.odd {{ background: var(--odd); font-weight: 600; }}
td.why {{ min-width: min(18rem, 45vw); }}
code {{ white-space: nowrap; }}
th button {{ font: inherit; color: inherit; background: none; border: 0; padding: 0;
  text-align: inherit; cursor: pointer; }}
th button::after {{ content: " \\2195"; color: var(--soft); }}
th[aria-sort=ascending] button::after {{ content: " \\2191"; }}
th[aria-sort=descending] button::after {{ content: " \\2193"; }}
.usual {{ color: var(--soft); }}
.caution {{ border-left: 4px solid #c9a400; background: var(--note); padding: .5rem .8rem; }}
footer {{ margin-top: 3rem; color: var(--soft); font-size: .85rem; }}
</style>
</head>
<body>
<main>
<h1>{title}</h1>
<p class="lead">{lead}</p>
{caution}
{sections}
</main>
<footer>Written by skflows {version}{note}</footer>
<script>{script}</script>
</body>
</html>
"""

# A click on the name of a column sorts the rows by it, and another click the other way round.
SCRIPT = """
for (const button of document.querySelectorAll("th button")) button.onclick = () => {
  const head = button.parentElement, body = head.closest("table").tBodies[0];
  const sign = head.ariaSort === "ascending" ? -1 : 1, place = head.cellIndex;
  for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
  const text = cell => cell.dataset.value ?? cell.textContent.replace(/[,%]/g, "");
  const key = row => text(row.cells[place]);
  const compare = (a, b) => a - b || (isNaN(a - b) ? a.localeCompare(b) : 0);
  [...body.rows].sort((a, b) => sign * compare(key(a), key(b))).forEach(row => body.append(row));
};
"""


def check_report(args, *inputs):
    """Raise an error, before the work starts, if there is a report that could not be written."""
    if args.report is None:
        return
    check_writable(args.report, *inputs)
    if is_standard(args.report):
        raise ValueError("--report needs a file, not standard output")
    if args.output is not None and args.report.resolve() == args.output.resolve():
        raise ValueError(
            f"{args.output} is given for both the output and the report: choose two files"
        )
    check_matplotlib("--report")


def write_report(args, text, output):
    """Write the page of a report, and say so; output is where the command's result goes."""
    with replace_file(args.report, "w", encoding="utf-8") as file:
        file.write(text)
    say(f"wrote {args.report}", output)


def page(title, lead, sections, note, caution=""):
    """Return a page as text.

    Parameters
    ----------
    title : str
        Its title.
    lead : str
        What a hurried reader should know, in HTML, as everything below.
    sections : list of tuple of (str, str)
        Titles and contents.
    note : str
        End of the line at the bottom.
    caution : str
        Reasons to doubt the lead, if there are any.
    """
    if caution:
        caution = f'<p class="caution"><strong>Caution.</strong> {caution}</p>'
    return PAGE.format(
        title=escape(title),
        lead=lead,
        caution=caution,
        sections="\n".join(f"<h2>{title}</h2>\n{body}" for title, body in sections),
        version=__version__,
        note=note,
        script=SCRIPT,
    )


def table(head, lines):
    """Return a table that can be sorted by its columns.

    Parameters
    ----------
    head : list of tuple of (str, bool)
        Names of the columns, and whether they hold numbers.
    lines : list of str
        The rows.
    """
    titles = "".join(
        f"<th{' class=number' if number else ''}><button>{name}</button></th>"
        for name, number in head
    )
    return (
        f"<div class='scroll' tabindex='0'><table><thead><tr>{titles}</tr></thead><tbody>\n"
        + "\n".join(lines)
        + "\n</tbody></table></div>"
    )


def breakable(name):
    """Return the name of a column, which narrow screens may break after a low line."""
    return escape(str(name)).replace("_", "_<wbr>")


def number_cell(number, text, is_number=True, is_odd=False):
    """Return a cell of the table, with its number, if it has one, to sort by."""
    classes = [name for name, holds in (("number", is_number), ("odd", is_odd)) if holds]
    value = "" if number is None else f" data-value='{float(number)!r}'"
    return f"<td class='{' '.join(classes)}'{value}>{text}</td>"


def percent(share, is_odd=False):
    """Return a cell with a share."""
    return number_cell(share, f"{share:.1%}", is_odd=is_odd)


def row_of(title, *cells):
    """Return a row of texts, of a table of numbers."""
    return f"<tr><td>{title}</td>{''.join(number_cell(None, cell) for cell in cells)}</tr>"


def picture(display, caption):
    """Return a display as a figure element that contains its data."""
    import matplotlib.pyplot as plt

    stream = io.BytesIO()
    display.figure_.savefig(stream, format="png", dpi=110)
    plt.close(display.figure_)
    data = base64.b64encode(stream.getvalue()).decode("ascii")
    return (
        f"<figure><img alt='{escape(caption, quote=True)}' src='data:image/png;base64,{data}'>"
        f"<figcaption>{escape(caption)}</figcaption></figure>\n"
    )
