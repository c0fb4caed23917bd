"""Numbers as text, with units."""

from __future__ import annotations

from math import isnan

MINUS = "−"  # noqa: RUF001  # as wide as a digit
DASH = "–"  # noqa: RUF001  # shown in tables for a missing number


def seconds_text(seconds: float | None) -> str:
    """Time as text: ``< 0.01 s``, ``0.42 s``, ``12 s``, ``3 min 5 s``, ``2 h 10 min``."""
    if seconds is None:
        return DASH
    if seconds < 60:
        if 0 < seconds < 0.005:
            return "< 0.01 s"
        return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def bytes_text(count: float | None) -> str:
    """Memory as text: ``730 MiB``, ``1.4 GiB``."""
    if count is None:
        return DASH
    mib = count / 2**20
    return f"{mib:.0f} MiB" if mib < 1000 else f"{mib / 1024:.1f} GiB"


def volume_text(ml: float | None) -> str:
    """Volume as text: ``0.32 ml``, ``35.7 ml``, ``1204 ml``."""
    if ml is None:
        return DASH
    return f"{ml:.3g} ml" if ml < 100 else f"{ml:.0f} ml"


def metric_text(value: float | None, unit: str = "") -> str:
    """Metric as text: three decimals without a unit, two with one, none for large values and counts."""
    if value is None or isnan(value):
        return DASH
    decimals = 0 if isinstance(value, int) or abs(value) >= 1000 else 2 if unit else 3
    return f"{value:.{decimals}f} {unit.replace('mm3', 'mm³')}".strip().replace("-", MINUS)


def count_text(count: int, noun: str) -> str:
    """``1 case``, ``2 cases``, ``2 boxes``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}{'es' if noun.endswith('x') else 's'}"
