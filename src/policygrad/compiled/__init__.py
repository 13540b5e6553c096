"""Compiled functions (numba) on arrays: networks on a CPU, epochs and steps of learning.

They compute what `models` and `updates` say, from the same random numbers, up to rounding. Those are the reference; it runs
where numba is missing, and for every network, head or optimiser that is not here.
"""


def usable() -> bool:
    """Whether numba is there, and one for this NumPy."""
    try:
        import policygrad.compiled.networks  # noqa: F401
    except (ImportError, OSError):
        return False
    return True
