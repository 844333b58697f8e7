"""Numbers as short text."""


def number(value: float | None, most: int = 4) -> str:
    """Return a number with so many digits, or as fit in eight columns; ``-`` for None."""
    if value is None:
        return "-"
    texts = [f"{float(f'{value:.{digits}g}'):.6g}" for digits in range(most, 0, -1)]
    return next((text for text in texts if len(text) <= 8), texts[-1])
