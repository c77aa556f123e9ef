"""Runs and models in MLflow; mlflow itself is imported on first use."""

from medseg.tracking.names import Slugs, slug
from medseg.tracking.provenance import environment, git_state
from medseg.tracking.registry import (
    Registered,
    log_model,
    promote,
    register,
    resolve,
    rollback,
    versions_of_run,
)
from medseg.tracking.run import TrackedRun
from medseg.tracking.store import find_store, prepare_environment

__all__ = [
    "Registered",
    "Slugs",
    "TrackedRun",
    "environment",
    "find_store",
    "git_state",
    "log_model",
    "prepare_environment",
    "promote",
    "register",
    "resolve",
    "rollback",
    "slug",
    "versions_of_run",
]
