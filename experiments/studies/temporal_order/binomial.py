"""How well k successes of n tell the probability of success."""

import math


def wilson(k: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """The interval of all p with ``|k/n - p| ≤ z √(p(1 - p)/n)``: about 95% for z = 1.96, and never outside 0 … 1.

    Args:
        k: successes.
        n: trials, at least 1.
        z: standard errors.

    Returns:
        ``(low, high)``.

    Source: Wilson (1927), Probable inference, the law of succession, and statistical inference.

    >>> [round(end, 3) for end in wilson(5, 5)]
    [0.566, 1.0]
    """
    share, spread = k / n, z * z / n
    middle = (share + spread / 2) / (1 + spread)
    reach = math.sqrt(spread * share * (1 - share) + spread**2 / 4) / (1 + spread)
    return max(0.0, middle - reach), min(1.0, middle + reach)
