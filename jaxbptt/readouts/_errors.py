"""Heads, and the entries that each must have."""


def heads(placed, named):
    if placed and named:
        raise TypeError(
            "heads of `several` go all by position, for a tuple, or all by name, for a dict: "
            f"got {len(placed)} and {sorted(named)}"
        )
    if not placed and not named:
        raise TypeError("`several` must have at least one head: got none")


def of_heads(name, other, value, number, names):
    """One entry for each head: a tuple of `number`, or a dict of `names`."""
    fits = isinstance(value, tuple) and not hasattr(value, "_fields") and len(value) == number
    if names is not None:
        fits = isinstance(value, dict) and value.keys() == set(names)
    if not fits:
        wanted = f"a tuple of {number}" if names is None else f"a dict of {', '.join(names)}"
        where = "" if other else " of several heads"
        raise TypeError(f"`{name}`{where} must be {other}{wanted}: got {value!r:.80}")
