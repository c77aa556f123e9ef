"""Which tracking store is used, and how long it may keep us waiting."""

import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from medseg.errors import MedsegError
from medseg.tracking.names import slug

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)

DEFAULT_URI = "sqlite:///mlflow.db"
_SCHEMES = re.compile(r"(sqlite|https?|databricks|(postgresql|mysql|mssql)(\+\w+)?)$")
_SQLITE_HEADER = b"SQLite format 3\x00"
# Answers that say "not now" rather than "no": log in again, timed out, too many requests.
_NOT_NOW = (401, 403, 408, 429)


@dataclass(frozen=True)
class Store:
    """A tracking store.

    Args:
        uri: Address in MLflow's terms; a sqlite path is absolute.
        artifacts: Folder for files where the store has none of its own (sqlite), else None.
    """

    uri: str
    artifacts: Path | None = None

    @property
    def shown(self) -> str:
        """The address without a password."""
        return self.censor(self.uri)

    def censor(self, text: str) -> str:
        """Return a text, e.g. of an error, without the user name and password of this store."""
        account, at, _ = urlsplit(self.uri).netloc.rpartition("@")
        return text.replace(account + at, "") if at else text


def prepare_environment() -> None:
    """Set MLflow's switches, before mlflow is first imported where possible.

    No usage statistics are sent, nothing is unpickled, and copies are made without a word. MONAI
    imports mlflow where it is installed, so a command calls this before it imports MONAI. What
    the user has set stays.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    if "mlflow" in sys.modules:
        from mlflow.telemetry import set_telemetry_client

        set_telemetry_client()  # type: ignore[no-untyped-call]


def find_store(tracking_uri: str | None = None) -> Store:
    """Return the store: the argument, else MLFLOW_TRACKING_URI, else a sqlite file here.

    Raises:
        MedsegError: The address is none that MLflow can use, or the file is no database.
    """
    uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI
    scheme = uri.partition(":")[0]
    if not _SCHEMES.match(scheme) or (scheme == "sqlite" and not uri.startswith("sqlite:///")):
        raise MedsegError(
            f"tracking: {uri!r} is no tracking store\n"
            f"  expected a server (http://host:5000) or a database (sqlite:///mlflow.db,\n"
            f"  postgresql://...); MLflow no longer takes a plain folder of runs: move one with\n"
            f"  mlflow migrate-filestore"
        )
    if scheme != "sqlite":
        return Store(uri.rstrip("/") if scheme.startswith("http") else uri)
    path = Path(uri.removeprefix("sqlite:///")).resolve()
    _check_sqlite(path)
    return Store(f"sqlite:///{path}", path.parent / "mlartifacts")


def _check_sqlite(path: Path) -> None:
    """Refuse a file that is no database; MLflow would try it for minutes."""
    if path.is_file() and path.stat().st_size:
        with path.open("rb") as file:
            head = file.read(len(_SQLITE_HEADER))
        if head != _SQLITE_HEADER:
            raise MedsegError(
                f"{path}: not a SQLite database (it begins with {head!r})\n"
                f"  name another file: --tracking-uri sqlite:///other.db"
            )


def open_client(store: Store) -> "MlflowClient":
    """Return a client of the store; the first use of a sqlite file lays out its tables."""
    prepare_environment()
    import mlflow

    if store.artifacts is not None:
        path = Path(store.uri.removeprefix("sqlite:///"))
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            log.info("laying out the new tracking database %s; this takes some seconds", path)
        # Some sixty lines, one for each table that MLflow ever changed.
        logging.getLogger("alembic").setLevel(logging.WARNING)
    return mlflow.MlflowClient(tracking_uri=store.uri)


def find_experiment(client: "MlflowClient", store: Store, name: str) -> str:
    """Return the id of an experiment, making it if need be.

    Raises:
        MedsegError: The experiment was deleted, so its name is taken but it takes no runs.
    """
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        artifacts = store.artifacts and (store.artifacts / slug(name)).as_uri()
        try:
            return str(client.create_experiment(name, artifact_location=artifacts or None))
        except MlflowException as error:
            # Another process may have made it between the two calls.
            found = client.get_experiment_by_name(name)
            if found is None:
                raise error
    if found.lifecycle_stage != "active":
        raise MedsegError(
            f"tracking: the experiment {name!r} at {store.shown} was deleted\n"
            f"  restore it (mlflow experiments restore -x {found.experiment_id}) or name another"
        )
    return str(found.experiment_id)


@contextmanager
def patience(seconds: int, *, retries: int = 1) -> Iterator[None]:
    """Let a request to a server take ``seconds``, not the four minutes of MLflow's defaults.

    What the user has set in the environment stays.
    """
    wanted = {
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(seconds),
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": str(retries),
        "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
        "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",
    }
    ours = {key: value for key, value in wanted.items() if key not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for key in ours:
            os.environ.pop(key, None)


def reason(store: Store, error: Exception) -> str:
    """Return the first line of an error, of at most 300 characters, without a password."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return store.censor(lines[0])[:300]


def is_refusal(error: Exception) -> bool:
    """Tell whether the store answered and said no, so that asking again is of no use."""
    if isinstance(error, MedsegError | FileNotFoundError | ImportError):
        return True
    from mlflow.exceptions import MlflowException

    if not isinstance(error, MlflowException):
        return False
    status = int(error.get_http_status_code())  # type: ignore[no-untyped-call]
    return 400 <= status < 500 and status not in _NOT_NOW
