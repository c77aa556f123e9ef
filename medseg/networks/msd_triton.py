"""MS-D in fused GPU kernels."""


def obstacle() -> str:
    """Return why this backend does not run here; empty if it does."""
    return "not built yet"
