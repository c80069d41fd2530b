"""Formats of columns of texts that stand for numbers, dates, times of day or durations.

A column has a format if each of its texts is written back identically from its number.
"""

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from itertools import pairwise, product
from math import isfinite

import numpy as np

from .dates import DAY, ENDS, EPOCH
from .kinds import FEW_VALUES

CURRENCIES = (
    "$", "€", "£", "¥", "₹", "US$", "A$", "C$", "USD", "EUR", "GBP", "CHF", "JPY", "CNY", "INR",
    "AUD", "CAD", "SEK", "NOK", "DKK", "PLN", "CZK", "BRL", "R$", "kr", "zł", "Fr.", "Rs", "Rs.",
)  # fmt: skip
SHARES = ("%", "\u2030")
UNITS = (
    "day", "days", "week", "weeks", "month", "months", "year", "years", "yr", "yrs",
    "hour", "hours", "hr", "hrs", "h", "minute", "minutes", "min", "mins", "second", "seconds",
    "sec", "secs", "s", "ms", "mm", "cm", "m", "km", "mi", "in", "ft", "mg", "g", "kg", "t", "lb",
    "lbs", "oz", "ml", "l", "L", "m²", "km²", "ha", "km/h", "mph", "°", "°C", "°F", "kWh",
    "kW", "W", "V", "A", "Hz", "MHz", "GHz", "kB", "KB", "MB", "GB", "TB", "kcal", "bar", "hPa",
)  # fmt: skip
MINUS = "-\u2212\u2013\uff0d"  # hyphen, minus sign, en dash, of full width
BLANKS = " \u00a0\u2009\u202f"
# Each sign of thousands with each decimal mark, the likeliest first.
MARKS = [
    (thousands, decimal)
    for thousands, decimal in product(("", ",", ".", "'", "\u2019", *BLANKS), ".,")
    if thousands != decimal
]
AMOUNT = re.compile(
    rf"(?P<before>\D*?)(?P<digits>[.,]?\d+(?:[.,'\u2019{BLANKS}]\d+)*(?:[eE][-+]?\d+)?)(?P<after>\D*)"
)
EXPONENT = re.compile(r"([\d.,]+)([eE])([-+]?)(\d+)")
CLOCK = re.compile(
    r"(?P<sign>-?)(?:(?P<days>\d+)(?P<word> days?,? ))?(?P<first>\d+):(?P<second>\d\d)"
    r"(?::(?P<third>\d\d)(?:\.(?P<fraction>\d{1,6}))?)?(?P<half> ?[AaPp][Mm])?"
)
# Names of the units of durations such as 2h 50m, by their seconds.
DURATIONS = {
    DAY: ("d", "days"),
    3600: ("h", "hr", "hrs", "hours"),
    60: ("m", "min", "mins", "minutes"),
    1: ("s", "sec", "secs", "seconds"),
}
SECONDS = {name: seconds for seconds, names in DURATIONS.items() for name in names}
_NAMES = "|".join(sorted(SECONDS, key=len, reverse=True))
DURATION = re.compile(rf"-?(?:\d+ ?(?:{_NAMES}) ?(?=\d|$))+(?:\d+)?(?<! )")
DURATION_PART = re.compile(rf"(\d+)( ?(?:{_NAMES})|)( ?)")
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September",
    "October", "November", "December",
)  # fmt: skip
OFFSET = re.compile(r"[+-]\d\d:\d\d$")  # from UTC
NUMERIC_DATE = re.compile(r"(\d{1,4})([-/.])(\d{1,2})\2(\d{2,4})(.*)", re.DOTALL)
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
# 24 December 2024, Tue, Dec 24, 2024 and Dec 2024.
NAMED_DATE = re.compile(
    r"(?:(?P<weekday>[A-Z][A-Za-z]+)(?P<comma>,? ))?"
    r"(?:(?P<day>\d{1,2})(?P<before>[- /]))?(?P<name>[A-Z][A-Za-z]{2,})"
    r"(?:(?P<between> )(?P<english_day>\d{1,2}))?(?P<after>,? |[-/])(?P<year>\d{4}|\d\d)"
    r"(?P<rest>(?!\d).*)",
    re.DOTALL,
)
MONTH = re.compile(r"(?:1[89]|20)\d\d([-/])(?:0[1-9]|1[0-2])")  # 2024-12
# What directives of a `DateFormat` match; they mean what they mean in `strftime`, in English, and
# a number after % is written without leading zeros.
DIRECTIVES = {
    "%Y": r"(?P<year>\d{4})",
    "%y": r"(?P<short_year>\d\d)",
    "%m": r"(?P<month>\d\d)",
    "%-m": r"(?P<month>\d{1,2})",
    "%b": rf"(?P<name>{'|'.join(month[:3] for month in MONTHS)})",
    "%B": rf"(?P<name>{'|'.join(MONTHS)})",
    "%^b": rf"(?P<name>{'|'.join(month[:3] for month in MONTHS).upper()})",
    "%^B": rf"(?P<name>{'|'.join(MONTHS).upper()})",
    "%a": rf"(?:{'|'.join(day[:3] for day in WEEKDAYS)})",
    "%A": rf"(?:{'|'.join(WEEKDAYS)})",
    "%d": r"(?P<day>\d\d)",
    "%-d": r"(?P<day>\d{1,2})",
    "%H": r"(?P<hour>\d\d)",
    "%-H": r"(?P<hour>\d{1,2})",
    "%I": r"(?P<hour>\d\d)",
    "%-I": r"(?P<hour>\d{1,2})",
    "%M": r"(?P<minute>\d\d)",
    "%S": r"(?P<second>\d\d)",
    "%f": r"(?P<fraction>\d{6})",
    "%3f": r"(?P<fraction>\d{3})",
    "%p": r"(?P<half>AM|PM)",
    "%P": r"(?P<half>am|pm)",
}
PLAIN = re.compile(r"-?\d[\d.,]*"), re.compile(r"-?\d{4,}(?:[.,]\d+)?")
PADDED = re.compile(r"-?0\d")  # how a number of a code begins, such as 007
PLAIN_NUMBER = re.compile(r"-?(?:(?:0|[1-9]\d*)(?:[.,]\d+)?|[.,]\d+)(?:[eE][-+]?\d+)?")
# Share of plain numbers, of words, and of other texts, beside another form.
MOST_PLAIN = MOST_WORDS = MOST_OTHERS = 0.1
HALF_MONTH = 15  # days
PIVOT = 69  # years of two digits from which on they are of the last century, as in POSIX


@dataclass(frozen=True, kw_only=True)
class Format(ABC):
    """How a column of texts is read as float64 and written back.

    Attributes
    ----------
    accepts_words : bool
        Whether texts without digits, such as "negotiable", stand for missing values.
    accepts_others : bool
        Whether all texts without the format do, such as ``about 70``.
    """

    accepts_words: bool = False
    accepts_others: bool = False

    role = "number"

    @property
    @abstractmethod
    def what(self):
        """What the texts are, for messages."""

    @abstractmethod
    def _reader(self):
        """Return a function that returns the number of a text, NaN if it has another format."""

    @abstractmethod
    def _text(self, value):
        """Return a number as a text."""

    def parse(self, texts):
        """Return texts as numbers, NaN where they have another format."""
        read = self._reader()
        numbers = {text: read(text) for text in set(texts)}
        return np.array([numbers[text] for text in texts], dtype=np.float64)

    def are_words(self, texts):
        """Return which texts stand for missing values."""
        if self.accepts_others:
            return np.isnan(self.parse([*texts]))
        return np.array([self.accepts_words and is_word(text) for text in texts], dtype=bool)

    def fits(self, texts):
        """Whether each of the texts is written back identically from its number."""
        numbers = self.parse(texts)
        return not np.isnan(numbers).any() and self.write(numbers) == [*texts]

    def write(self, values):
        """Return known numbers as texts; infinity, such as the end of an interval, is ``inf``."""
        values = np.asarray(values, dtype=np.float64).tolist()
        return [self._text(value) if isfinite(value) else str(value) for value in values]

    def are_exact(self, values):
        """Return which known numbers are read back, apart from rounding errors, once written."""
        return np.isclose(self.parse(self.write(values)), values, rtol=1e-9, atol=0)


@dataclass(frozen=True)
class NumberFormat(Format):
    """How a column writes numbers, such as ``$40,000.00``, ``12,5 %``, ``(120)`` or ``3 days``.

    Attributes
    ----------
    positive, negative, zero, one : str
        What stands around the digits of such a number, with ``{}`` in their place.
    decimal, thousands : str
        The decimal mark, and what separates thousands, if anything.
    decimals : int
        Digits after the decimal mark, at most.
    style : {"fixed", "short", "whole"}
        Whether all numbers have as many decimals, or no trailing zeros, or none where they are
        whole numbers and all otherwise.
    exponent : str
        The letter of scientific notation, a plus sign if positive exponents have it, and their
        number of digits, such as ``e+2``.
    is_bare : bool
        Whether no zero stands in front of the decimal mark.
    accepts_plain : bool
        Whether numbers without what stands around them, or without separated thousands, are read
        too.
    """

    positive: str = "{}"
    negative: str = "-{}"
    zero: str = "{}"
    one: str = "{}"
    decimal: str = "."
    thousands: str = ""
    decimals: int = 0
    style: str = "fixed"
    exponent: str = ""
    is_bare: bool = False
    accepts_plain: bool = False

    @property
    def what(self):
        around = self.positive.replace("{}", "").strip("+ " + BLANKS)
        if around in SHARES:
            return "percentages" if around == "%" else "shares"
        if around in CURRENCIES:
            return "amounts"
        if around:
            return f"quantities in {around}"
        if self.thousands:
            return "numbers with separated thousands"
        return "numbers in scientific notation" if self.exponent else "numbers"

    def _reader(self):
        templates = {self.positive: 1, self.zero: 1, self.one: 1, self.negative: -1}
        around = {tuple(template.split("{}")): sign for template, sign in templates.items()}
        thousands = [self.thousands]
        if self.accepts_plain:
            around = {("", ""): 1, ("-", ""): -1} | around
            thousands.append("")
        if not self.thousands and not self.exponent:  # as none of the fit was so large
            thousands += [mark for mark, point in MARKS if mark and point == self.decimal]
        digits = [(mark, _digits(mark, self.decimal)) for mark in thousands]

        def read(text):
            if (match := AMOUNT.fullmatch(text)) is None:
                return np.nan
            for mark, each in digits:
                if each.fullmatch(match["digits"]):
                    sign = around.get((match["before"], match["after"]), np.nan)
                    return sign * _value(match["digits"], mark, self.decimal)
            return np.nan

        return read

    def _text(self, value):
        digits = self._digits(abs(value))
        if not digits.strip("0,. '"):
            return self.zero.format(digits)
        if value < 0:
            return self.negative.format(digits)
        return (self.one if digits == "1" else self.positive).format(digits)

    def _digits(self, value):
        if self.exponent:
            text, power = f"{value:.{self.decimals}e}".split("e")
            letter, plus, width = self.exponent[0], "+" in self.exponent, int(self.exponent[-1])
            sign = "-" if int(power) < 0 else "+" * plus
            end = f"{letter}{sign}{abs(int(power)):0{width}d}"
        else:
            text, end = f"{value:,.{self.decimals}f}", ""
        whole, _, rest = text.partition(".")
        if self.style == "short" or (self.style == "whole" and not rest.strip("0")):
            rest = rest.rstrip("0")
        whole = whole.replace(",", self.thousands)
        if self.is_bare and whole == "0" and rest:
            whole = ""
        return f"{whole}{self.decimal if rest else ''}{rest}{end}"


@dataclass(frozen=True)
class ClockFormat(Format):
    """How a column writes times of day, such as ``14:30``, or durations, such as ``1:23:45``.

    Their numbers are seconds.

    Attributes
    ----------
    is_time : bool
        Whether they are times of day.
    width : int
        Least number of digits of the first number.
    n_fields : int
        Numbers between colons, hours first, or minutes of a duration with two.
    decimals : int
        Digits of fractions of seconds.
    half : str
        How the half of the day is written, such as `` AM``.
    days : str
        What stands between days and hours, if there are days.
    """

    is_time: bool
    width: int = 2
    n_fields: int = 2
    decimals: int = 0
    half: str = ""
    days: str = ""

    @property
    def what(self):
        return "times of day" if self.is_time else "durations"

    @property
    def units(self):
        """Seconds of each number between colons."""
        return (3600, 60, 1) if self.n_fields == 3 else (3600, 60) if self.is_time else (60, 1)

    def _reader(self):
        def read(text):
            match = CLOCK.fullmatch(text)
            if match is None:
                return np.nan
            fields = [int(field) for field in match.group("first", "second", "third") if field]
            half = match["half"]
            if (
                len(fields) != self.n_fields
                or bool(half) != bool(self.half)
                or max(fields[1:]) > 59
            ):
                return np.nan
            if half:
                if not 1 <= fields[0] <= 12:
                    return np.nan
                fields[0] = fields[0] % 12 + 12 * (half.strip().lower() == "pm")
            if self.is_time and (fields[0] > 23 or match["sign"] or match["days"]):
                return np.nan
            seconds = sum(unit * field for unit, field in zip(self.units, fields, strict=True))
            seconds += DAY * int(match["days"] or 0) + float(f".{match['fraction'] or 0}")
            return -seconds if match["sign"] else seconds

        return read

    def _text(self, value):
        last = self.units[-1]
        scale = 10**self.decimals if last == 1 else 1
        ticks = round(abs(value) * scale / last)  # of the last number
        if self.is_time:
            ticks = round(value * scale / last) % (DAY * scale // last)
        sign = "-" if value < 0 and ticks and not self.is_time else ""
        count, fraction = divmod(ticks, scale)
        fields = []
        for _ in range(self.n_fields - 1):
            count, field = divmod(count, 60)
            fields.append(f":{field:02d}")
        days = ""
        if self.days:
            n_days, count = divmod(count, 24)
            days = f"{n_days}{self.days}"
        half = ""
        if self.half:
            half = self.half.replace("A", "P").replace("a", "p") if count >= 12 else self.half
            count = (count + 11) % 12 + 1
        rest = f".{fraction:0{self.decimals}d}" if self.decimals else ""
        return f"{sign}{days}{count:0{self.width}d}{''.join(fields[::-1])}{rest}{half}"


@dataclass(frozen=True)
class DurationFormat(Format):
    """How a column writes durations with their units, such as ``2h 50m`` or ``2h05``.

    Their numbers are seconds.

    Attributes
    ----------
    units : tuple of (int, str, int)
        The seconds of each unit, what stands behind its digits, and their least number; the longest
        unit first.
    between : str
        What stands between a unit and the digits of the next.
    is_full : bool
        Whether units of which there are none are written, such as ``0m`` in ``19h 0m``.
    """

    units: tuple
    between: str = ""
    is_full: bool = False
    what = "durations"

    def _reader(self):
        parts = "".join(
            rf"(?:(\d+){re.escape(suffix)}(?:{re.escape(self.between)}(?=\d)|$))?"
            for _, suffix, _ in self.units
        )
        regex = re.compile(rf"(-?)(?=\d){parts}")

        def read(text):
            match = regex.fullmatch(text)
            if match is None:
                return np.nan
            sign, *digits = match.groups(default="0")
            total = sum(int(n) * unit[0] for n, unit in zip(digits, self.units, strict=True))
            return float(-total if sign else total)

        return read

    def _text(self, value):
        last, suffix, width = self.units[-1]
        rest = last * round(abs(value) / last)
        sign = "-" if value < 0 and rest else ""
        parts = []
        for seconds, after, digits in self.units:
            n, rest = divmod(rest, seconds)
            if n or self.is_full:
                parts.append(f"{n:0{digits}d}{after}")
        return sign + (self.between.join(parts) or f"{0:0{width}d}{suffix}")


@dataclass(frozen=True)
class BooleanFormat(Format):
    """How a column writes booleans, such as ``TRUE``. Their numbers are 1 and 0."""

    true: str = "True"
    false: str = "False"
    role = "bool"
    what = "booleans"

    def _reader(self):
        return {self.true: 1.0, self.false: 0.0}.get

    def _text(self, value):
        return self.true if value else self.false


@dataclass(frozen=True)
class DateFormat(Format):
    """How a column writes dates, such as ``31.12.2024``. Their numbers are seconds since 1970.

    Attributes
    ----------
    pattern : str
        As for `strftime`, with English names of months.
    is_ambiguous : bool
        Whether the texts are dates with day and month exchanged too.
    """

    pattern: str
    is_ambiguous: bool = False

    role = "datetime"

    @property
    def zone(self):
        """The time zone in which dates are written: an offset from UTC, such as ``+01:00``."""
        match = OFFSET.search(self.pattern)
        return UTC if match is None else datetime.strptime(match[0], "%z").tzinfo

    @property
    def is_day_first(self):
        """Whether the day stands before the month."""
        before_day, before_month = (
            re.split(each, self.pattern)[0] for each in ("%-?d", "%[-^]?[mbB]")
        )
        return len(before_day) < len(before_month)

    @property
    def what(self):
        if not re.search("%-?d", self.pattern):
            return "months"
        if self.pattern.startswith("%Y") or re.search(r"%\^?[bB]", self.pattern):
            return "dates"
        return f"dates ({'day' if self.is_day_first else 'month'} first)"

    def _reader(self):
        regex = _regex(self.pattern)

        def read(text):
            match = regex.fullmatch(text)
            return np.nan if match is None else _moment(match.groupdict())

        return read

    def _text(self, value):
        value = min(max(value, ENDS[0]), ENDS[1])
        if "%S" not in self.pattern:  # the nearest that can be written
            unit = 60 if "%M" in self.pattern else DAY
            value = unit * (np.floor(value / unit) if unit == DAY else round(value / unit))
        elif "f" not in self.pattern:
            value = round(value)
        elif "%3f" in self.pattern:
            value = round(value, 3)
        date = EPOCH + timedelta(seconds=value)
        if not re.search("%-?d", self.pattern):
            date += timedelta(days=HALF_MONTH)
        written = {
            "%Y": f"{date.year:04d}",
            "%y": f"{date.year % 100:02d}",
            "%b": MONTHS[date.month - 1][:3],
            "%B": MONTHS[date.month - 1],
            "%^b": MONTHS[date.month - 1][:3].upper(),
            "%^B": MONTHS[date.month - 1].upper(),
            "%a": WEEKDAYS[date.weekday()][:3],
            "%A": WEEKDAYS[date.weekday()],
            "%f": f"{date.microsecond:06d}",
            "%3f": f"{date.microsecond // 1000:03d}",
            "%p": "PM" if date.hour >= 12 else "AM",
            "%P": "pm" if date.hour >= 12 else "am",
        }
        hour = (date.hour + 11) % 12 + 1
        numbers = {"m": date.month, "d": date.day, "H": date.hour, "I": hour}
        for letter, number in (numbers | {"M": date.minute, "S": date.second}).items():
            written |= {f"%{letter}": f"{number:02d}", f"%-{letter}": str(number)}
        return _DIRECTIVE.sub(lambda match: written[match[0]], self.pattern)


OTHER_MARK = {",": ".", ".": ","}  # the decimal mark beside a mark of thousands
_PLAIN = {"positive": "{}", "negative": "-{}", "zero": "{}", "one": "{}"}
_POINTS = re.compile(r"\d{1,3}(\.\d{3})*,\d+|\d{1,3}(\.\d{3}){2,}")
_DIRECTIVE = re.compile(r"%(?:[-^]|\d)?[A-Za-z]")


def find_format(
    texts: Iterable[str],
    decimal=None,
    thousands=None,
    dayfirst=None,
    is_plain=False,
    accepts_plain=False,
    accepts_words=False,
    is_number=False,
):
    """Return the format of a column of texts, or None if it has none.

    Parameters
    ----------
    texts : iterable of str
        The texts, none missing.
    decimal, thousands : str, optional
        The decimal mark and what separates thousands, where the texts leave it open.
    dayfirst : bool, optional
        Whether days stand before months, where the texts leave it open. None decides by the texts:
        where all could be either, dates with dots have the day first, others the month.
    is_plain : bool
        Whether numbers without a sign, thousands or a decimal comma are a format too; they may be
        categories.
    accepts_plain : bool
        Whether a tenth of the texts may be plain numbers, such as ``38000`` beside ``$101,000``:
        whoever writes the table keeps known texts as they are.
    accepts_words : bool
        Whether a tenth of the texts may be words, such as ``negotiable``. Plain numbers are a
        format beside words and other texts, such as ``about 70``, if more than 30 differ.
    is_number : bool
        Whether the user says that these are numbers: then any texts may be others.
    """
    counts = Counter(texts)
    if accepts_words:
        form = _with_words(counts, decimal, thousands, dayfirst, is_plain, accepts_plain)
        return form or _with_others(counts, decimal, thousands, is_number)
    if accepts_plain and (form := _with_plain(counts)) is not None:
        return form
    zeros = {text for text in counts if _is_negative_zero(text)}  # -0.0 % is written as 0.0 %
    texts = [text for text in counts if text not in zeros]
    first = texts[:1]
    if not first or not any(char.isdigit() for char in first[0]):
        return None
    for find in (
        lambda: _date_formats(texts, dayfirst),
        lambda: _clock_formats(texts),
        lambda: _duration_formats(texts),
        lambda: _number_formats(texts, decimal, thousands, is_plain),
    ):
        for form in find():
            if (
                form.fits(texts[:100])
                and form.fits(texts)
                and not np.isnan(form.parse(zeros)).any()
            ):
                return form
    return None


def _is_negative_zero(text):
    digits = [char for char in text if char.isdigit()]
    return {*digits} == {"0"} and any(mark in text for mark in MINUS + "(")


def _with_words(counts, *options):
    """Return the format of texts of which a few may be words, None if there is no such."""
    decimal, thousands, dayfirst, is_plain, accepts_plain = options
    words = [text for text in counts if is_word(text)]
    if not words:
        return find_format(counts.elements(), *options)
    if sum(counts[word] for word in words) > MOST_WORDS * counts.total():
        return None
    numbers = [text for text in counts.elements() if not is_word(text)]
    is_plain |= len(counts) - len(words) > FEW_VALUES
    form = find_format(numbers, decimal, thousands, dayfirst, is_plain, accepts_plain)
    return form and replace(form, accepts_words=True)


def _with_others(counts, decimal, thousands, is_number):
    """Return the format of texts of which most are plain numbers, None if there is no such."""
    numbers = [text for text in counts if PLAIN_NUMBER.fullmatch(text)]
    n_others = counts.total() - sum(counts[text] for text in numbers)
    is_clear = n_others <= MOST_OTHERS * counts.total() and len(numbers) > FEW_VALUES
    is_clear &= not any(PADDED.match(text) for text in counts)
    if not n_others or not numbers or not (is_clear or is_number):
        return None
    form = find_format(numbers, decimal, thousands, is_plain=True)
    if form is None:  # 1.5 and 1.50
        has_comma = any("," in text for text in numbers)
        if has_comma and any("." in text for text in numbers):
            return None
        mark = "," if has_comma else "."
        decimals = max(_n_decimals(text, mark) for text in numbers)
        form = NumberFormat(decimal=mark, decimals=decimals, style="short")
    return replace(form, accepts_words=True, accepts_others=True)


def other_than_number(texts):
    """Return the first of texts that is no plain number if most are, and differ; else None."""
    others = [text for text in texts if not PLAIN_NUMBER.fullmatch(text)]
    numbers = {*texts} - {*others}
    if not others or 2 * len(others) >= len(texts) or len(numbers) <= FEW_VALUES:
        return None
    return others[0]


def is_word(text):
    """Whether a text has no digits."""
    return not any(map(str.isdigit, text))


def other_forms(texts: Iterable[str]):
    """Return a text with the format that most of some texts have, and the texts without it.

    They are None and an empty list if there is no such format, or if all texts have it.
    """
    counts = Counter(texts)
    for groups in _groups(counts):
        for group in groups.values():
            if 2 * sum(counts[text] for text in group) <= counts.total():
                continue
            if len(group) < len(counts) and find_format(group) is not None:
                others = counts.keys() - {*group}
                return group[0], [text for text in counts.elements() if text in others]
    return None, []


def _groups(texts):
    """Yield dicts of lists of texts that may have a format in common."""
    for pattern in (CLOCK, DURATION, NUMERIC_DATE, MONTH):
        yield {pattern: [text for text in texts if pattern.fullmatch(text)]}
    by_shape: dict = {}
    for text in texts:
        if (match := NAMED_DATE.fullmatch(text)) is not None:
            shape = tuple(group is None for group in match.groups())
            by_shape.setdefault(shape, []).append(text)
    yield by_shape
    by_core: dict = {}
    by_decimals: dict = {}
    for text in texts:
        if (match := AMOUNT.fullmatch(text)) is None:
            continue
        if (core := _signed(match["before"], match["after"])[1]) is not None:
            by_core.setdefault(core, []).append(text)
            last = re.split("[.,]", match["digits"])[1:][-1:]
            by_decimals.setdefault((core, len("".join(last))), []).append(text)
    yield by_core
    yield by_decimals


def _with_plain(counts):
    """Return the format of texts of which a few are plain numbers, None if there is no such."""
    for pattern in PLAIN:
        plain = [text for text in counts if pattern.fullmatch(text)]
        if not 0 < sum(counts[text] for text in plain) <= MOST_PLAIN * counts.total():
            continue
        marked = find_format([text for text in counts if not pattern.fullmatch(text)])
        # 0.12 beside 12 % may be the same.
        if not isinstance(marked, NumberFormat) or marked.what in ("percentages", "shares"):
            continue
        # Each is the plain form of its number, unlike 007.
        form = NumberFormat(decimal=marked.decimal)
        forms = {text: replace(form, decimals=_n_decimals(text, form.decimal)) for text in plain}
        if all(
            each.fits([text]) or replace(each, thousands=marked.thousands).fits([text])
            for text, each in forms.items()
        ):
            return replace(marked, accepts_plain=True)
    return None


def _number_formats(texts, decimal, thousands, is_plain):
    """Yield formats of numbers that texts may have, the likeliest first."""
    matches = []
    for text in texts:
        if (match := AMOUNT.fullmatch(text)) is None:
            return
        matches.append(match)
    templates = _templates({(match["before"], match["after"]) for match in matches}, matches)
    if templates is None:
        return
    digits = [match["digits"] for match in matches]
    around = templates["positive"].replace("{}", "").strip("+ " + BLANKS)
    is_plain |= templates != _PLAIN
    for marks in _marks(digits, decimal, thousands, is_plain, around):
        yield from _with_decimals(digits, templates, *marks)


def _templates(pairs, matches):
    """Return what stands around positive and negative numbers, zero and one, or None."""
    by_sign: dict = {}
    for before, after in pairs:
        sign, core = _signed(before, after)
        if core is None or (sign, core) in by_sign:
            return None
        by_sign[sign, core] = before + "{}" + after
    cores = {core for _, core in by_sign}
    singular = None
    if len(cores) == 2:  # 1 day, 3 days
        short, long = sorted(cores, key=lambda core: len(core[1]))
        if (short[0], short[1] + "s") != long:
            return None
        is_one = [
            m["digits"] == "1" for m in matches if _signed(m["before"], m["after"])[1] == short
        ]
        if not all(is_one):
            return None
        singular = by_sign.pop(("", short), None)
        cores = {long}
    if len(cores) != 1 or {"-", "("} <= {sign for sign, _ in by_sign}:
        return None
    (core,) = cores
    signs = {sign: template for (sign, _), template in by_sign.items()}
    plain = "{}".join(core)
    negative = signs.get("-", signs.get("(", "-" + plain))
    if "{" in plain.replace("{}", "") or plain.count("{}") != 1:
        return None
    positive = signs.get("+", plain)
    return {
        "positive": positive,
        "negative": negative,
        "zero": signs.get("", positive),
        "one": singular or (positive if "+" in signs else plain),
    }


def _signed(before, after):
    """Return the sign in texts around digits, and the texts without it, None if they are others."""
    sign = ""
    bare, rest = before, after
    if "(" in before and ")" in after:
        sign, bare, rest = "(", before.replace("(", "", 1), after.replace(")", "", 1)
    else:
        for each in [*MINUS, "+"]:
            if before.count(each) == 1:
                sign, bare = ("+" if each == "+" else "-"), before.replace(each, "")
                break
            if after == each and each != "+":
                sign, rest = "-", ""
                break
    unit = bare.strip(BLANKS), rest.strip(BLANKS)
    is_known = (unit[0] in CURRENCIES and not unit[1]) or (
        not unit[0] and (not unit[1] or unit[1] in (*CURRENCIES, *SHARES, *UNITS))
    )
    return sign, ((bare, rest) if is_known else None)


def _marks(digits, decimal, thousands, is_plain, around):
    """Yield pairs of marks of thousands and decimals with which all digits can be read."""
    has = {mark: any(mark in each for each in digits) for mark in ",.'\u2019" + BLANKS}
    pairs = []
    for mark, point in MARKS:
        if (mark and not has[mark]) or (not mark and point == "," and not has[","]):
            continue  # the same as without it
        if all(_digits(mark, point).fullmatch(each) for each in digits):
            pairs.append((mark, point))
    if thousands is not None:
        pairs = [marks for marks in pairs if marks[0] in ("", thousands) and marks[1] != thousands]
    if decimal is not None and any(marks[1] == decimal for marks in pairs):
        pairs = [marks for marks in pairs if marks[1] == decimal]
    elif around in CURRENCIES:  # which do not have three decimals
        pairs.sort(key=lambda marks: max(_n_decimals(each, marks[1]) for each in digits) > 2)
    else:  # thousands where each comma has three digits behind it
        pairs.sort(key=lambda marks: marks == ("", ","))
    for mark, point in pairs:
        if is_plain or any(EXPONENT.fullmatch(each) for each in digits):
            yield mark, point
        elif (
            mark == "." and decimal is None and not any(_POINTS.fullmatch(each) for each in digits)
        ):
            continue  # it may as well be the decimal mark
        elif mark in tuple(BLANKS):  # digits of a code are as many everywhere
            if len({len(each.partition(point)[0]) for each in digits}) > 1:
                yield mark, point
        elif mark or thousands or decimal == ",":
            yield mark, point
        elif point == "," and {_n_decimals(each, ",") for each in digits} == {2}:
            yield mark, point


def _with_decimals(digits, templates, thousands, decimal):
    """Yield formats with these marks, for each style of decimals."""
    exponents = [match for each in digits if (match := EXPONENT.fullmatch(each))]
    exponent = ""
    if len(exponents) == len(digits):
        widths = {len(match[4]) for match in exponents}
        plus = "+" if any(match[3] == "+" for match in exponents) else ""
        exponent = f"{exponents[0][2]}{plus}{min(widths)}"
        digits = [match[1] for match in exponents]
    elif exponents:
        return
    n_decimals = [_n_decimals(each, decimal) for each in digits]
    n = max(n_decimals)
    is_bare = any(each.startswith(decimal) for each in digits)
    for style in ("fixed", "short", "whole") if len({*n_decimals}) > 1 else ("fixed",):
        yield NumberFormat(
            **templates,
            decimal=decimal,
            thousands=thousands,
            decimals=n,
            style=style,
            exponent=exponent,
            is_bare=is_bare,
        )


def _n_decimals(digits, decimal):
    return len(re.split("[eE]", digits.partition(decimal)[2])[0])


@cache
def _digits(thousands, decimal):
    """Return the regular expression of digits with these marks."""
    whole = r"\d*"
    if thousands:
        whole = rf"[1-9]\d{{0,2}}(?:{re.escape(thousands)}\d{{3}})*|0?"
    return re.compile(rf"(?=.?\d)(?:{whole})(?:{re.escape(decimal)}\d+)?(?:[eE][-+]?\d+)?")


def _value(digits, thousands, decimal):
    plain = digits.replace(thousands, "") if thousands else digits
    return float(plain.replace(decimal, "."))


def _clock_formats(texts):
    """Yield formats of times of day and durations that texts may have, the likeliest first."""
    matches = []
    for text in texts:
        if (match := CLOCK.fullmatch(text)) is None:
            return
        matches.append(match)
    first = matches[0]
    hours = [match["first"] for match in matches]
    width = min(map(len, hours))
    n_fields = 2 + (first["third"] is not None)
    half = first["half"] or ""
    if half:
        half = half.replace("P", "A").replace("p", "a")
    decimals = len(first["fraction"] or "")
    clock = partial(ClockFormat, width=width, n_fields=n_fields, decimals=decimals)
    is_time = all(int(hour) < 24 for hour in hours) and not any(
        match["sign"] or match["days"] for match in matches
    )
    # 09:15:00 is a time, 0:09:15 a duration.
    if is_time and (n_fields == 2 or width == 2 or half):
        yield clock(True, half=half)
    if not half:
        yield clock(False, days=first["word"] or "")


def _duration_formats(texts):
    """Yield formats of durations with units that texts may have, the likeliest first."""
    shorter = dict(pairwise(DURATIONS))
    suffixes: dict[int, str] = {}
    widths: dict[int, int] = {}
    between = set()
    for text in texts:
        if DURATION.fullmatch(text) is None:
            return
        parts = DURATION_PART.findall(text)
        between |= {blank for *_, blank in parts[:-1]}
        longer = 2 * DAY
        for digits, suffix, _ in parts:
            name = suffix.strip()
            seconds = SECONDS[name] if name else shorter.get(longer, longer)
            if seconds >= longer or suffixes.setdefault(seconds, suffix) != suffix:
                return
            width = len(digits) if digits[0] == "0" else 1 + (not name)
            widths[seconds] = max(width, widths.get(seconds, 1))
            longer = seconds
    if len(between) != 1:  # quantities and codes if no text has two units
        return
    units = tuple((n, suffixes[n], widths[n]) for n in sorted(suffixes)[::-1])
    form = partial(DurationFormat, units, "".join(between))
    if units[-1][1]:  # without a unit, as in 2h05, the last number needs the one before
        yield form()
    yield form(is_full=True)


def _date_formats(texts, dayfirst):
    """Yield formats of dates that texts may have, the likeliest first."""
    if match := NUMERIC_DATE.fullmatch(texts[0]):
        first, sep, _, last, rest = match.groups()
        if len(first) == 4:
            orders = [("Y", "m", "d")]
        elif len(first) > 2 or len(last) == 3:
            return
        else:
            year = "Y" if len(last) == 4 else "y"
            orders = [("d", "m", year), ("m", "d", year)]
        dates = [sep.join(f"%{letter}" for letter in order) for order in orders]
    elif match := MONTH.fullmatch(texts[0]):
        is_season = all((int(text[:4]) + 1) % 100 == int(text[5:]) for text in texts)  # 2001-02
        rest, dates = "", [] if is_season else [f"%Y{match[1]}%m"]
    elif match := NAMED_DATE.fullmatch(texts[0]):
        has = match.groupdict(default="")
        if has["english_day"] and (has["day"] or len(has["year"]) == 2):
            return
        if has["day"] and has["before"] != has["after"]:
            return
        rest = has["rest"]
        start = f"{has['weekday'] and _directive('a', 'weekday', texts)}{has['comma']}"
        day = f"%d{has['before']}" if has["day"] else ""
        english_day = f"{has['between']}%d" if has["english_day"] else ""
        if not (day or english_day) and (rest or start or len(has["year"]) == 2):
            return  # Jan 21 is as well a day as a month
        month = _directive("b", "name", texts)
        year = f"%{'Y' if len(has['year']) == 4 else 'y'}"
        dates = [f"{start}{day}{month}{english_day}{has['after']}{year}"]
    else:
        return
    clock = _clock_pattern(rest)
    if clock is None:
        return
    valid = []
    for date in dates:
        for pattern in (date + clock, _unpadded(date) + clock, _unpadded(date + clock)):
            form = DateFormat(pattern)
            if form.fits(texts[:100]) and form.fits(texts):
                valid.append(form)
                break
    if len(valid) == 2:  # either order
        if dayfirst is None:
            dayfirst = sep == "." or _is_constant_day(valid[0], texts)
            valid = [DateFormat(form.pattern, is_ambiguous=True) for form in valid]
        valid = valid if dayfirst else valid[::-1]
    yield from valid[:1]


def _is_constant_day(day_first, texts):
    """Whether the days are all the same if they stand first: such as the first of each month."""
    dates = [EPOCH + timedelta(seconds=s) for s in day_first.parse(texts).tolist()]
    return len({date.day for date in dates}) == 1 < len({date.month for date in dates})


def _directive(letter, group, texts):
    """Return the directive of the names of months or weekdays in texts: short or long, capitals."""
    names = {match[group] for text in texts if (match := NAMED_DATE.fullmatch(text))}
    is_long = any(len(name) > 3 for name in names) or names <= {"May", "MAY"}
    are_capitals = all(name.isupper() for name in names)
    return f"%{'^' * are_capitals}{letter.upper() if is_long else letter}"


def _unpadded(pattern):
    return re.sub("%([mdHI])", r"%-\1", pattern)


def _clock_pattern(text):
    """Return the pattern of the time of day behind a date, None if there is something else."""
    if not text:
        return ""
    match = re.fullmatch(
        r"(T|:|,? )(\d{1,2}):\d\d(:\d\d)?(\.\d{3}|\.\d{6})?( ?)([AaPp][Mm])?(Z?)", text
    )
    if match is None or (match[4] and not match[3]):
        return None
    start, _, second, fraction, blank, half, end = match.groups()
    fraction = {0: "", 4: ".%3f", 7: ".%f"}[len(fraction or "")]
    half = "" if half is None else f"{blank}%{'p' if half.isupper() else 'P'}"
    hour = "%I" if half else "%H"
    return f"{start}{hour}:%M{':%S' if second else ''}{fraction}{half}{end}"


@cache
def _regex(pattern):
    parts = re.split(f"({_DIRECTIVE.pattern})", pattern)
    return re.compile("".join(DIRECTIVES.get(part, re.escape(part)) for part in parts))


def _moment(groups):
    """Return the seconds since 1970 of the groups of a match, NaN if there is no such date."""
    year, month = groups.get("year"), groups.get("month")
    if year is None:
        year = int(groups["short_year"])
        year += 1900 if year >= PIVOT else 2000
    if month is None:
        month = [name[:3] for name in MONTHS].index(groups["name"][:3].capitalize()) + 1
    hour = int(groups.get("hour") or 0)
    if half := groups.get("half"):
        if not 1 <= hour <= 12:
            return np.nan
        hour = hour % 12 + 12 * (half.lower() == "pm")
    minute, second = (int(groups.get(name) or 0) for name in ("minute", "second"))
    micro = int((groups.get("fraction") or "0").ljust(6, "0"))
    try:
        date = datetime(
            int(year), int(month), int(groups.get("day", 1)), hour, minute, second, micro
        )
    except ValueError:
        return np.nan
    return (date - EPOCH).total_seconds()
