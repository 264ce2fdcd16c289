"""Numbers carry as many digits as their error allows."""

# ruff: noqa: RUF001 - the typographic characters are what is tested

import pytest

from hopline.report import numbers


def ordinary(text):
    return text.replace("\N{NO-BREAK SPACE}", " ").replace("\N{NARROW NO-BREAK SPACE}", " ")


@pytest.mark.parametrize(
    ("value", "error", "told"),
    [
        (2.314e-5, 0.42e-5, "(2.31 ± 0.42) × 10⁻⁵"),
        (1.352e-5, 0.0721e-5, "(1.352 ± 0.072) × 10⁻⁵"),
        (9.9e-6, 2.3e-5, "(9.9 ± 23.0) × 10⁻⁶"),
        (2.314e-5, None, "2.3 × 10⁻⁵"),
        (2.314e-5, 0.0, "2.3 × 10⁻⁵"),
        (None, 1e-6, numbers.NONE),
        (float("nan"), 1e-6, numbers.NONE),
    ],
)
def test_powers_with_errors(value, error, told):
    assert ordinary(numbers.power_with_error(value, error)) == told


@pytest.mark.parametrize(
    ("value", "error", "told"),
    [(0.4183, 0.0514, "0.418 ± 0.051"), (0.4183, 0.31, "0.42 ± 0.31"), (-0.1, None, "\N{MINUS SIGN}0.10")],
)
def test_energies_with_errors(value, error, told):
    assert ordinary(numbers.with_error(value, error)) == told


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (0, "0"),
        (162.4, "162"),
        (5.763, "5.76"),
        (0.0919, "0.0919"),
        (1234567, "1 234 567"),
        (True, numbers.NONE),
    ],
)
def test_plain_numbers(value, told):
    assert ordinary(numbers.plain(value)) == told


@pytest.mark.parametrize(
    ("seconds", "told"), [(5.04, "5.0 s"), (94, "94 s"), (200, "3.3 min"), (9000, "2.5 h"), (4e5, "4.6 d")]
)
def test_durations(seconds, told):
    assert numbers.duration(seconds) == told


def test_counts_agree_with_their_noun():
    assert numbers.counted(1, "source") == "1 source"
    assert numbers.counted(3, "source") == "3 sources"
