"""The operator that computes MS-D: a definition, and faster forms of it for CPU and GPU."""

from medseg.networks.mixed_scale_dense.operator import (
    Backend,
    BackendState,
    backend_states,
    choose_backend,
    mixed_scale_dense,
)

__all__ = [
    "Backend",
    "BackendState",
    "backend_states",
    "choose_backend",
    "mixed_scale_dense",
]
