"""Numbers as short text."""

from typing import Any

import pytest

from backprop_xp.display.numbers import number


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (-0.0001255, "-0.00013"),
        (1234567.0, "1.23e+06"),
        (12345.6, "12350"),
        (0.94136, "0.9414"),
        (None, "-"),
        (-1.25e-300, "-1e-300"),
    ],
)
def test_a_number_fits_in_eight_columns(value: Any, text: str) -> None:
    """In a report a space then separates numbers side by side."""
    assert number(value) == text
    assert len(text) <= 8
