"""The command ``skflows score``: batches of a table, scored by a stored density."""

import sys
import warnings

import numpy as np

from ..columns.arrays import listed
from ..columns.checks import did_you_mean
from ..columns.dates import parsed
from ..conditional import DensityClassifier, FlowRegressor
from ..table import TableDensity
from ._cells import NAMIBIA
from ._columns import (
    WITH_OFFSET,
    Gaps,
    check_free,
    ids,
    numbers,
    select,
    unquoted,
    with_dates,
    with_parsed,
)
from ._forms import dates_of, form_of, is_iso, number_of
from ._model_files import load_model
from ._progress import with_progress
from ._tables import check_writable, import_pandas, open_table, say, shown, writing


def run_score(args):
    """Score the rows of a CSV file by a stored density."""
    check_writable(args.output, args.model, args.data)
    model = load_model(args)
    labels, added = ids(args), ["log_density", "outlier"]
    check_free(labels, added, args.data)
    names = getattr(model, "feature_names_in_", None)
    table = open_table(
        args.data, args.sep, args.decimal, **as_in_fit(model), used=names, kept=labels
    )
    rows = (TableRows if isinstance(model, TableDensity) else NumberRows)(model, args.data)
    n_scored = n_outliers = 0
    needed = None if names is None else [*names, *labels]
    with writing(args.output, table.form) as append:
        for batch in with_progress(table, args.output, needed):
            named = select(batch, labels, args.data)
            if names is None:
                batch = unquoted(batch, labels).drop(columns=labels)
            frame = rows.of(batch)
            scores = np.empty(0)
            if len(frame):
                scores = model.score_samples(frame if names is not None else frame.values)
            outlier = scores < model.offset_
            scored = frame.iloc[:, :0].assign(**dict(zip(added, (scores, outlier), strict=True)))
            append(named.join(scored).astype({"outlier": "Int64"}))
            n_scored += len(scores)
            n_outliers += int(outlier.sum())
        rows.report()
    if n_scored == len(getattr(model, "held_out_scores_", ())):
        print(
            f"skflows: {args.data} has as many rows as the fit: if they are the same, use skflows "
            "outliers, since a model that has seen an odd row may score it high",
            file=sys.stderr,
        )
    if args.output:
        say(
            f"wrote {shown(args.output)}: labelled {n_outliers} of {n_scored} rows as outliers "
            f"(log-density below {model.offset_:.4g})",
            args.output,
        )


class NumberRows:
    """The rows that a model of numbers scores, of each batch of a table."""

    def __init__(self, model, path):
        self.names, self.path = getattr(model, "feature_names_in_", None), path
        self.gaps = Gaps(path)

    def of(self, batch):
        names = batch.columns if self.names is None else self.names
        frame = self.gaps.left_out_of(select(batch, names, self.path))
        return numbers(frame, self.path, "the model was fitted to numbers")

    def report(self):
        self.gaps.report()


class TableRows:
    """The rows that a density of a table scores or completes, of each batch."""

    def __init__(self, model, path):
        self.model, self.path = model, path
        self.unseen = Unseen(encoding_of(model))

    def of(self, batch):
        frame = select(batch, [*self.model.feature_names_in_], self.path)
        frame = with_dates(frame, self.unseen.encoding)
        self.unseen.add(frame)
        return frame

    def report(self):
        self.unseen.warn()


class Unseen:
    """The categories of batches of a table that the fit of an encoding has not seen."""

    def __init__(self, encoding):
        self.encoding, self.values = encoding, {}

    def add(self, frame):
        if self.encoding is not None:
            for name, values in self.encoding.unseen(frame).items():
                self.values.setdefault(name, set()).update(values)

    def warn(self):
        warn_of_unseen(self.values)


def encoding_of(model):
    """Return how a model encodes tables, or None if it takes numbers."""
    if isinstance(model, TableDensity):
        return model._schema.encoding
    if isinstance(model, DensityClassifier):
        return model._encoding
    if isinstance(model, FlowRegressor) and len(model.density_.encoder_) == 1:
        return model.density_.encoder_[0].encoding_
    return None


def as_in_fit(model):
    """Return how the columns were read in the fit of a model, as `open_table` takes it.

    These are the columns that held texts, and codes, and the form of the file.
    """
    encoding, form = encoding_of(model), form_of(model)
    if encoding is None:
        return {"texts": [], "codes": [], "form": form}
    # Of a model that was fitted to a table of Python.
    formats = dict(zip(encoding.keys, encoding.formats, strict=True))
    kept = {n: each for n, each in formats.items() if each is not None and not is_iso(each)}
    are_numbers = zip(encoding.keys, encoding.roles, strict=True)
    numbers = [name for name, role in are_numbers if role == "number" and formats[name] is None]
    form = form._replace(formats=kept | form.formats, numbers=numbers)
    named = list(zip(encoding.keys, encoding.categories, strict=True))
    are_texts = {encoding.keys[j] for j in encoding.identifiers if encoding.roles[j] == "text"}
    are_texts |= {name for name, seen in named if any(isinstance(value, str) for value in seen)}
    return {
        "texts": [name for name in encoding.keys if name in are_texts],
        "codes": [name for name, seen in named if NAMIBIA in seen],
        "form": form,
    }


def given_values(model, texts):
    """Return the values of some columns of a model, in a dict of texts, as a table of one row.

    The texts are written as cells of the file of the fit.
    """
    if not isinstance(model, TableDensity):
        raise ValueError(
            f"the model is a {type(model).__name__}, which draws rows without conditions: --given "
            "needs a model by --estimator table"
        )
    encoding, form = encoding_of(model), as_in_fit(model)["form"]
    frame = import_pandas().DataFrame({name: [text] for name, text in texts.items()}, dtype=object)
    if others := [name for name in texts if name not in encoding.keys]:
        raise ValueError(
            f"--given {others[0]}={texts[others[0]]}: the model has no such column; it has "
            f"{listed(encoding.keys)}"
        )
    if left_out := [n for n in texts if encoding.keys.index(n) in encoding.identifiers]:
        warnings.warn(
            f"--given {left_out[0]}={texts[left_out[0]]}: the model leaves this column out, as it "
            "names the rows: it says nothing about other columns",
            stacklevel=2,
        )
    roles = dict(zip(encoding.keys, encoding.roles, strict=True))
    for name, text in texts.items():
        format = form.format_of(name)
        is_date = roles[name] == "datetime" and format is not None and not is_iso(format)
        if roles[name] == "datetime" and not is_date and np.isnan(parsed([text])[0][0]):
            example = "2024-12-31" if encoding.zones[name] is None else WITH_OFFSET
            raise ValueError(
                f"--given {name}={text}: the column held dates in fit: write it as in {example}"
            )
        if roles[name] not in ("number", "bool") and not is_date:
            continue  # a text, or a date in ISO 8601
        (value,) = np.full(1, np.nan) if format is None else format.parse([text])
        if np.isnan(value) and roles[name] == "number":
            value = number_of(text.replace(form.decimal, "."))
        if not np.isfinite(value):
            what, usual = "numbers", model._schema.usual(name)
            example = f"{usual:.6g}".replace(".", form.decimal)
            if format is not None:
                what, example = format.what, format.write([usual])[0]
            raise ValueError(
                f"--given {name}={text}: the column held {what} such as {example!r} in fit: write "
                "it so"
            )
        if roles[name] == "number" and format is not None and not format.are_exact([value])[0]:
            raise ValueError(
                f"--given {name}={text}: the column held {format.what} in fit, and this would be "
                f"written as {format.write([value])[0]}: give such a value"
            )
        frame[name] = value
        if roles[name] == "datetime":
            frame[name] = dates_of(np.array([value]), np.nan, frame.index)
        elif roles[name] == "bool":
            frame[name] = frame[name].astype(bool)
    frame = with_parsed(frame, {n: z for n, z in encoding.zones.items() if n in frame}, True)
    for name, values in encoding.unseen(frame.reindex(columns=encoding.keys)).items():
        categories = encoding.categories_of(name)
        hint = did_you_mean(values[0], categories)
        warnings.warn(
            f"--given {name}={values[0]}: the fit has not seen this value, which says little or "
            f"nothing about other columns; {hint and hint + ' '}it has seen {listed(categories)}",
            stacklevel=2,
        )
    return frame


def warn_of_unseen(unseen):
    """Warn about categories that fit has not seen, which count as rare."""
    for name, values in unseen.items():
        values = set(values)
        some = ", ".join(repr(value) for value in sorted(values, key=str)[:5])
        warnings.warn(
            f"column {name!r} has {len(values)} value{'s' * (len(values) > 1)} that the fit has "
            f"not seen, treated as rare: {some}{', ...' * (len(values) > 5)}",
            stacklevel=2,
        )
