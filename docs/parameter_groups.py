"""Sphinx extension that divides the parameters of a flow into groups, with links to the guide."""

import re

from skflows.density import _docstrings
from skflows.density._base import BaseFlowDensity

ENTRY = re.compile(r" {4}\*\*(\w+)\*\*")  # as numpydoc begins a parameter


def names(part):
    """Return the parameters that a shared part of the docstrings describes."""
    return {match["name"] for match in _docstrings.DEFAULT.finditer(part)}


# Name of a group: the section of the guide about it and its parameters. Those that no group names
# belong to the architecture.
GROUPS = {
    "Architecture": (":doc:`/choosing`", names(_docstrings.NETWORK)),
    "Solver": (
        ":ref:`cnf-accuracy`",
        {"trace", "log_det", "n_probes", "solver", "tolerance", "n_steps"},
    ),
    "Preprocessing": (
        ":doc:`/user_guide/preparation`",
        names(_docstrings.PREPROCESSING + _docstrings.DATA),
    ),
    "Training": (
        ":doc:`/user_guide/training`",
        names(_docstrings.TRAINING)
        | {"objective", "coupling", "kinetic_penalty", "jacobian_penalty", "checkpointing"},
    ),
    "Outlier": (":ref:`outlier-threshold`", names(_docstrings.TRAINING_CONTAMINATION)),
}


def group_of(parameter):
    """Return the name of a parameter's group."""
    found = (name for name, (_, members) in GROUPS.items() if parameter in members)
    return next(found, "Architecture")


def group_parameters(app, what, name, obj, options, lines):
    """Replace numpydoc's field "Parameters" of a flow by one field for each group, in place."""
    is_flow = what == "class" and issubclass(obj, BaseFlowDensity)
    if not is_flow or ":Parameters:" not in lines:
        return
    start = lines.index(":Parameters:")
    stop = next(i for i in range(start + 1, len(lines)) if lines[i].startswith(":"))
    groups = {group: [] for group in GROUPS}
    for line in lines[start + 2 : stop]:  # the first entry follows a blank line
        if entry := ENTRY.match(line):
            entries = groups[group_of(entry[1])]
        entries.append(line)
    lines[start:stop] = [
        line
        for group, entries in groups.items()
        if entries
        for line in (f":{group} parameters:", "", f"    See {GROUPS[group][0]}.", "", *entries)
    ]


def setup(app):
    """Run after numpydoc, which has priority 500."""
    app.connect("autodoc-process-docstring", group_parameters, priority=600)
    return {"parallel_read_safe": True}
