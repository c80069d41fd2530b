"""Dates in seconds since 1970, and their time zones."""

import re
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import numpy as np

from .arrays import is_missing

MICROSECONDS = 1e6  # in a second
WEEK, DAY = 7 * 86_400, 86_400  # seconds
YEAR, HOUR = 365.2425 * DAY, 3_600
CALENDAR = "year", "month", "day of the month", "weekday", "hour"
EPOCH_WEEK = 4 * DAY  # 1970-01-01 was a Thursday: weeks begin on Mondays
EPOCH = datetime(1970, 1, 1)
LEAST_MONTHS = 3  # different ones, by which a column of dates has months
ROUNDED_MONTHS, ROUNDED_SECONDS = 9, 4  # decimals
# Seconds of the years 2 and 9998: Python has no dates far beyond.
ENDS = -62_104_060_800, 253_339_228_800
ISO_DATE = re.compile(r"\d{4}-\d{2}-\d{2}([T ]|$)")  # how a date, or date and time, begins
OFFSET = re.compile(r"(?:UTC)?([+-])(\d\d):(\d\d)")
# Of pandas, polars and Arrow, as they print dtypes.
ZONE = re.compile(r"(?:^datetime64\[\w+, |time_zone='|, tz=)([^\]']+)")


def is_date(value):
    """Whether a value is a date, or a date and time, whatever its library."""
    is_like_one = hasattr(value, "toordinal") or isinstance(value, np.datetime64)
    return is_like_one and not is_missing(value)


def zone_of(dtype):
    """Return the time zone that the name of a dtype contains, or None."""
    match = ZONE.search(dtype)
    return None if match is None else match[1]


def common_zone(dates, name):
    """Return the name of the time zone of all dates of a column, or None if they have none."""
    zones = {getattr(date, "tzinfo", None) for date in dates}
    names = {None if zone is None else str(zone) for zone in zones}
    if len(names) > 1:
        listed = ", ".join(sorted("no time zone" if zone is None else zone for zone in names))
        raise ValueError(
            f"column {name!r} holds dates of different time zones ({listed}): convert them to one, "
            "for example by pandas.to_datetime(..., utc=True)."
        )
    (zone,) = names or {None}
    if zone is not None:
        time_zone(zone, name)
    return zone


def time_zone(zone, name):
    """Return a time zone from its name, which may be an offset such as ``"UTC+01:00"``."""
    if match := OFFSET.fullmatch(zone):
        sign, hours, minutes = match.groups()
        offset = timedelta(hours=int(hours), minutes=int(minutes))
        return timezone(-offset if sign == "-" else offset)
    try:
        return ZoneInfo(zone)
    except (KeyError, OSError, ValueError) as error:
        raise ValueError(
            f"column {name!r} has the time zone {zone!r}, which the time zone database does not "
            "have: convert it to a zone such as 'Europe/Berlin' or 'UTC', for example by "
            ".dt.tz_convert('UTC')."
        ) from error


def check_zone(zone, fitted, name):
    """Raise an error if only one of a column's time zones, now and in fit, is None."""
    if (zone is None) == (fitted is None):
        return
    before, now = ("no time zone" if each is None else each for each in (fitted, zone))
    remedy = "tz_localize(None), if they are local times of the dates in fit"
    if zone is None:
        remedy = f"tz_localize({fitted!r}), or to the time zone in which they are"
    raise ValueError(
        f"the dates of column {name!r} had {'' if fitted is None else 'the time zone '}{before} in "
        f"fit; now they have {'' if zone is None else 'the time zone '}{now}: convert them by "
        f".dt.{remedy}."
    )


def seconds_of(dates):
    """Return dates in seconds since 1970: in UTC if they have a time zone, else in local time."""
    naive = [
        date.astimezone(UTC).replace(tzinfo=None) if getattr(date, "tzinfo", None) else date
        for date in dates
    ]
    return np.array(naive, dtype="datetime64[us]").astype(np.int64) / MICROSECONDS


def datetimes_of(seconds):
    """Return seconds since 1970 as ``datetime64[us]``, NaN as not-a-time."""
    return np.round(seconds * MICROSECONDS).astype("datetime64[us]")


def local_seconds(seconds, zone, name):
    """Return seconds in UTC as seconds in the local time of a zone; as they are if it is None."""
    if zone is None:
        return seconds
    zone = time_zone(zone, name)
    return seconds + _offsets(seconds, lambda t: t.replace(tzinfo=UTC).astimezone(zone).utcoffset())


def utc_seconds(seconds, zone, name):
    """Undo `local_seconds`; of an hour that occurs twice in local time, the first is meant."""
    if zone is None:
        return seconds
    zone = time_zone(zone, name)
    return seconds - _offsets(seconds, lambda t: t.replace(tzinfo=zone).utcoffset())


def _offsets(seconds, offset_of):
    """Return the offsets of moments from UTC in seconds.

    Days between whose ends the offset does not change are looked up once: there are few of them.
    """

    def looked_up(moments):
        distinct, inverse = np.unique(moments, return_inverse=True)
        dates = [EPOCH + timedelta(seconds=s) for s in distinct.tolist()]
        offsets = np.array([offset_of(date).total_seconds() for date in dates], dtype=np.float64)
        return offsets[inverse]

    seconds = np.floor(np.clip(seconds, *ENDS))
    day = np.floor(seconds / DAY) * DAY
    offsets = looked_up(day)
    changes = offsets != looked_up(day + DAY)
    offsets[changes] = looked_up(seconds[changes])
    return offsets


def split_moment(seconds):
    """Return the week since 1970, the day of the week and the second of the day."""
    since = seconds - EPOCH_WEEK
    week = np.floor(since / WEEK)
    weekday = np.floor((since - week * WEEK) / DAY)
    return week, weekday, since - week * WEEK - weekday * DAY


def joined_moment(week, weekday=0.0, time=0.0):
    """Return the seconds since 1970 of what `split_moment` returns."""
    return EPOCH_WEEK + week * WEEK + weekday * DAY + time


def months_of(seconds):
    """Return moments in months since 1970, in which days are fractions of their month."""
    months = np.full(len(seconds), np.nan)
    known = ~np.isnan(seconds)
    moments = np.clip(seconds[known], *ENDS)
    number = np.floor(moments / DAY).astype("datetime64[D]").astype("datetime64[M]").astype(int)
    start = start_of_month(number)
    months[known] = number + (moments - start) / (start_of_month(number + 1) - start)
    return months


def moments_of_months(months):
    """Return the seconds since 1970 of what `months_of` returns."""
    moments = np.full(len(months), np.nan)
    known = ~np.isnan(months)
    number = np.floor(np.round(months[known], ROUNDED_MONTHS))
    start = start_of_month(number)
    length = start_of_month(number + 1) - start
    moments[known] = np.round(start + (months[known] - number) * length, ROUNDED_SECONDS)
    return moments


def start_of_month(number):
    """Return the seconds since 1970 at which a month begins, given its number since 1970."""
    day = np.asarray(number).astype(int).astype("datetime64[M]").astype("datetime64[D]")
    return DAY * day.astype(int).astype(np.float64)


def months_later(seconds, months):
    """Return moments whole numbers of months later, at most on the last day of a month."""
    later = np.full(np.broadcast_shapes(np.shape(seconds), np.shape(months)), np.nan)
    known = ~np.isnan(seconds + months)
    seconds, months = (np.broadcast_to(each, later.shape)[known] for each in (seconds, months))
    seconds = np.clip(seconds, *ENDS)
    number = np.floor(months_of(seconds))
    day = start_of_day(seconds) - start_of_month(number)
    number = np.clip(number + months, *np.floor(months_of(np.array(ENDS))))
    start = start_of_month(number)
    last_day = start_of_month(number + 1) - start - DAY
    later[known] = start + np.minimum(day, last_day) + time_of_day(seconds)
    return later


def month_offset(seconds):
    """Return how many seconds moments, of which several differ, are all after months begin.

    It is negative for the ends of months, of different lengths, and None if they are neither.
    """
    distinct = np.unique(seconds)
    if len(distinct) < LEAST_MONTHS or not ENDS[0] < distinct[0] <= distinct[-1] < ENDS[1]:
        return None
    number = np.floor(months_of(distinct))
    for start in start_of_month(number), start_of_month(number + 1):
        if np.ptp(distinct - start) < 1 / MICROSECONDS:  # of moments with fractions of seconds
            return float(distinct[0] - start[0])
    return None


def calendar_part(seconds, part, zone, name):
    """Return one of `CALENDAR` of moments, in the local time of a zone if there is one."""
    of_moments, known = np.full(len(seconds), np.nan), ~np.isnan(seconds)
    of_moments[known] = _calendar_part(local_seconds(seconds[known], zone, name), part)
    return of_moments


def _calendar_part(moments, part):
    if part == "hour":
        return np.floor(np.mod(moments, DAY) / HOUR)
    if part == "weekday":
        return split_moment(moments)[1]
    months = np.floor(months_of(moments))
    if part == "year":
        return np.floor(months / 12) + EPOCH.year
    if part == "month":
        return np.mod(months, 12) + 1
    return np.floor((moments - start_of_month(months)) / DAY) + 1


def start_of_day(seconds):
    """Return the midnight before a moment."""
    return DAY * np.floor(seconds / DAY)


def time_of_day(seconds):
    """Return the seconds since the midnight before a moment."""
    return seconds - start_of_day(seconds)


def start_of_week(seconds):
    """Return the moment at which the week of a moment begins."""
    return joined_moment(np.floor((seconds - EPOCH_WEEK) / WEEK))


def parsed(texts):
    """Return texts in ISO 8601 in seconds since 1970, and their offsets from UTC in seconds.

    Both are NaN for other texts, and the offset for local times.
    """
    seconds, offsets = np.full((2, len(texts)), np.nan)
    for i, text in enumerate(texts):
        try:
            date = datetime.fromisoformat(text if ISO_DATE.match(text) else "")
        except ValueError:
            continue
        seconds[i] = (date.replace(tzinfo=None) - EPOCH).total_seconds()
        if (offset := date.utcoffset()) is not None:
            offsets[i] = offset.total_seconds()
            seconds[i] -= offsets[i]
    return seconds, offsets


def moments_of(texts):
    """Return dates, texts in ISO 8601 without a time zone, in seconds."""
    dates = [datetime.fromisoformat(text) for text in texts]
    if zoned := [text for text, date in zip(texts, dates, strict=True) if date.tzinfo]:
        raise ValueError(f"{zoned[0]!r} has a time zone")
    return seconds_of(dates)


def moment_text(seconds):
    """Return a date as text, or infinity, which is an open end."""
    if np.isinf(seconds):
        return str(seconds)
    moment = np.datetime64(round(seconds * MICROSECONDS), "us")
    return str(moment.item()).removesuffix(" 00:00:00")
