"""Numbers as a reader wants them: as many digits as their error allows, powers of ten, plus-minus."""

import math
from typing import TypeGuard

NONE = "\N{EN DASH}"
"""Stands where there is no number."""
GAP = "\N{NO-BREAK SPACE}"
"""Keeps a number, its error and its unit on one line."""
TIMES = f"{GAP}\N{MULTIPLICATION SIGN}{GAP}"
SUPERSCRIPTS = str.maketrans("-0123456789", "\N{SUPERSCRIPT MINUS}⁰¹²³⁴⁵⁶⁷⁸⁹")


def is_number(value: object) -> TypeGuard[float]:
    """Return whether a value read from a file is a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def plain(value: object, digits: int = 3) -> str:
    """Write a number with ``digits`` significant digits and no exponent; a dash where there is none."""
    if not is_number(value):
        return NONE
    number = float(value)
    if number == 0:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(number))))
    return _minus(f"{number:,.{decimals}f}".replace(",", "\N{NARROW NO-BREAK SPACE}"))


def count(value: object) -> str:
    """Write a whole number, thousands apart; a dash where there is none."""
    return f"{round(value):,}".replace(",", "\N{NARROW NO-BREAK SPACE}") if is_number(value) else NONE


def percent(value: object, decimals: int = 0) -> str:
    """Write a share as 8 %; a dash where there is none."""
    return f"{100 * value:.{decimals}f}{GAP}%" if is_number(value) else NONE


def counted(value: float, noun: str) -> str:
    """Write 1 frame, 2 frames."""
    return f"{count(value)} {noun}" if value == 1 else f"{count(value)} {noun}s"


def fixed(value: object, decimals: int) -> str:
    """Write a number with a fixed number of decimals; a dash where there is none."""
    return _minus(f"{float(value):.{decimals}f}") if is_number(value) else NONE


def power(value: object, digits: int = 2) -> str:
    """Write a number as 2.3 x 10^-5 with ``digits`` significant digits; a dash where there is none."""
    if not is_number(value):
        return NONE
    number = float(value)
    if number == 0:
        return "0"
    mantissa, exponent = f"{number:.{digits - 1}e}".split("e")
    return f"{_minus(mantissa)}{TIMES}{_ten(int(exponent))}"


def power_with_error(value: object, error: object) -> str:
    """Write (2.3 ± 0.4) x 10^-5: the error to two digits, the value to the error's last one."""
    if not is_number(value) or not is_number(error) or float(error) <= 0 or float(value) == 0:
        return power(value)
    number, spread = float(value), float(error)
    exponent = math.floor(math.log10(abs(number)))
    scale = 10.0**exponent
    decimals = _error_decimals(spread / scale)
    pair = f"({_minus(f'{number / scale:.{decimals}f}')}{GAP}±{GAP}{spread / scale:.{decimals}f})"
    return f"{pair}{TIMES}{_ten(exponent)}"


def with_error(value: object, error: object, decimals: int = 2) -> str:
    """Write 0.42 ± 0.05; without an error the value to ``decimals``."""
    if not is_number(value) or not is_number(error) or float(error) <= 0:
        return fixed(value, decimals)
    number, spread = float(value), float(error)
    decimals = max(decimals, min(_error_decimals(spread), 4))
    return f"{_minus(f'{number:.{decimals}f}')}{GAP}±{GAP}{spread:.{decimals}f}"


def duration(seconds: object) -> str:
    """Write seconds as 42 s, 3.1 min, 5.2 h or 2.4 d."""
    if not is_number(seconds):
        return NONE
    value = float(seconds)
    for unit, length in (("d", 86_400.0), ("h", 3_600.0), ("min", 60.0)):
        if value >= 2 * length:
            return f"{value / length:.1f} {unit}"
    return f"{value:.0f} s" if value >= 10 else f"{value:.1f} s"  # noqa: PLR2004


def _error_decimals(spread: float) -> int:
    return min(6, max(0, 1 - math.floor(math.log10(spread)))) if spread < 1 else 1


def _ten(exponent: int) -> str:
    return "10" + str(exponent).translate(SUPERSCRIPTS)


def _minus(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}")
