"""Models in MLflow: logged with a run, registered under a name, promoted, and found again."""

import atexit
import logging
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from medseg import __version__
from medseg.errors import MedsegError
from medseg.tracking.names import Slugs
from medseg.tracking.plain import flatten
from medseg.tracking.provenance import pinned_requirements
from medseg.tracking.run import TrackedRun
from medseg.tracking.signature import signature_of
from medseg.tracking.store import Store, find_store, open_client, patience, reason

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersion

log = logging.getLogger(__name__)

CHAMPION, ROLLBACK = "champion", "rollback"
SECONDS = 600  # for one request: weights are large and servers forward them to a store of their own
# Formats that are data and nothing else. A pickle of any name is none of them.
SAFE = frozenset(
    {".json", ".safetensors", ".yaml", ".yml", ".md", ".txt", ".csv", ".png", ".html", ".parquet"}
)
_RUN_ID = re.compile(r"[0-9a-f]{32}")
_INSIDE = "artifacts/model"


@dataclass(frozen=True)
class Registered:
    """A version of a registered model.

    Args:
        name: Name of the registered model.
        version: Its version.
        previous: After a promotion, the version that had the alias before, if any.
    """

    name: str
    version: str
    previous: str | None = None

    @property
    def uri(self) -> str:
        """The address of this very version, whatever is promoted later."""
        return f"models:/{self.name}/{self.version}"


def log_model(
    run: TrackedRun,
    model_folder: Path,
    *,
    input_example: NDArray[Any],
    name: str = "model",
    metadata: Mapping[str, Any] | None = None,
) -> str:
    """Log a model folder with a run, as a pyfunc from code over safetensors.

    Args:
        run: The run that trained it.
        model_folder: ``model.json``, ``weights.safetensors`` and what else is safe to open.
        input_example: Two or more small images, (batch, channels, *spatial).
        name: Name of the logged model within the run.
        metadata: Plain values to keep with the model, e.g. the job hash.

    Returns:
        The model's address, ``models:/m-...``.

    Raises:
        MedsegError: The folder is no model, or holds a file that may run code when opened; the
            store is away or refuses; or the example does not fit the model.
    """
    from mlflow.entities import LoggedModelOutput
    from mlflow.exceptions import MlflowException

    check_safe(model_folder)
    client, run_id = run.client, str(run.run_id)
    try:
        with patience(SECONDS):
            logged = client.create_logged_model(str(run.experiment_id), name, source_run_id=run_id)
            with (
                _ready_or_failed(client, logged.model_id),
                tempfile.TemporaryDirectory() as scratch,
            ):
                packed = _pack(model_folder, Path(scratch), logged, input_example, metadata or {})
                client.log_model_artifacts(logged.model_id, str(packed))
            client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    except MlflowException as error:
        raise MedsegError(
            f"{model_folder}: not logged at {run.store.shown} ({reason(run.store, error)})\n"
            f"  the folder itself is whole, and can be used as it is"
        ) from None
    return f"models:/{logged.model_id}"


def _pack(
    model_folder: Path,
    scratch: Path,
    logged: "LoggedModel",
    input_example: NDArray[Any],
    metadata: Mapping[str, Any],
) -> Path:
    """Return a folder as MLflow wants it, with the model folder inside."""
    import mlflow
    from mlflow.models import Model

    # The name of the folder becomes part of the address, so it is always the same.
    staged, packed = scratch / "model", scratch / "packed"
    shutil.copytree(model_folder, staged)
    mlflow.pyfunc.save_model(
        path=str(packed),
        mlflow_model=Model(
            artifact_path=logged.artifact_location,
            model_uuid=logged.model_id,
            run_id=logged.source_run_id,
            model_id=logged.model_id,
            metadata={"medseg_version": __version__, **metadata},
        ),
        python_model=str(Path(__file__).with_name("pyfunc_model.py")),
        artifacts={"model": str(staged)},
        model_config={"device": "cpu"},
        signature=signature_of(model_folder),
        input_example=input_example.astype("float32"),
        pip_requirements=pinned_requirements(),
    )
    return packed


@contextmanager
def _ready_or_failed(client: "MlflowClient", model_id: str) -> Iterator[None]:
    """Tell the store how the logging of a model ended."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except BaseException:
        with suppress(MlflowException):  # What went wrong first is what the caller must see.
            client.finalize_logged_model(model_id, "FAILED")
        raise
    client.finalize_logged_model(model_id, "READY")


def register(
    model_uri: str,
    name: str,
    *,
    tags: Mapping[str, Any] | None = None,
    tracking_uri: str | None = None,
) -> Registered:
    """Make a logged model the next version of a registered one.

    Args:
        model_uri: What :func:`log_model` returned.
        name: Name of the registered model; made if need be.
        tags: Tags of the version: job hash, split hash, data digest, scores; nested ones are
            flattened.
        tracking_uri: The store, as in :meth:`TrackedRun.start`.

    Raises:
        MedsegError: The name has a character that MLflow refuses, or there is no such model.
    """
    from mlflow.exceptions import MlflowException

    if not name.strip() or re.search(r"[/:]", name):
        raise MedsegError(f"model name {name!r}: a name has no / and no : and is not empty")
    store = find_store(tracking_uri)
    client = open_client(store)
    model_id, slugs = model_uri.removeprefix("models:/"), Slugs()
    with patience(SECONDS):
        try:
            logged = client.get_logged_model(model_id)
        except MlflowException as error:
            raise _not_found(store, model_uri, error) from None
        try:
            client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        version = client.create_model_version(
            name,
            # Not models:/m-...: MLflow would look that up in the store of its global state.
            source=logged.artifact_location,
            run_id=logged.source_run_id,
            tags={slugs(key): value for key, value in flatten(tags or {}).items()},
            model_id=model_id,
        )
    return Registered(name, str(version.version))


def promote(
    name: str,
    version: str | int,
    *,
    alias: str = CHAMPION,
    keep_as: str = ROLLBACK,
    tracking_uri: str | None = None,
) -> Registered:
    """Give a version an alias; the version that had it keeps another, for the way back.

    Args:
        name: Name of the registered model.
        version: The version to promote.
        alias: The alias by which it is loaded, ``models:/NAME@champion``.
        keep_as: Alias for the version that loses ``alias``.
        tracking_uri: The store, as in :meth:`TrackedRun.start`.

    Raises:
        MedsegError: There is no such version.
    """
    from mlflow.exceptions import MlflowException

    store = find_store(tracking_uri)
    client = open_client(store)
    with patience(SECONDS):
        try:
            client.get_model_version(name, str(version))
        except MlflowException as error:
            raise _not_found(store, f"models:/{name}/{version}", error) from None
        before = find_alias(client, name, alias)
        if before == str(version):
            return Registered(name, str(version))
        # First the way back: a kill between the two leaves the champion where it was.
        if before is not None:
            client.set_registered_model_alias(name, keep_as, before)
        client.set_registered_model_alias(name, alias, str(version))
        stamp = datetime.now(UTC).isoformat(timespec="seconds")
        client.set_model_version_tag(name, str(version), f"promoted.{alias}", stamp)
    return Registered(name, str(version), before)


def rollback(
    name: str, *, alias: str = CHAMPION, kept_as: str = ROLLBACK, tracking_uri: str | None = None
) -> Registered:
    """Promote the version that was last replaced; a second call takes that back.

    Raises:
        MedsegError: There is no such model, or no version of it was ever replaced.
    """
    from mlflow.exceptions import MlflowException

    store = find_store(tracking_uri)
    with patience(SECONDS):
        try:
            before = find_alias(open_client(store), name, kept_as)
        except MlflowException as error:
            raise _not_found(store, f"models:/{name}", error) from None
    if before is None:
        raise MedsegError(f"{name}: no version was replaced, so there is none to go back to")
    return promote(name, before, alias=alias, keep_as=kept_as, tracking_uri=tracking_uri)


def find_alias(client: "MlflowClient", name: str, alias: str) -> str | None:
    """Return the version that has an alias, or None."""
    aliases: Mapping[str, Any] = client.get_registered_model(name).aliases
    return str(aliases[alias]) if alias in aliases else None


def versions_of_run(run_id: str, *, tracking_uri: str | None = None) -> dict[str, str]:
    """Return the newest version that a run registered under each name.

    Raises:
        MedsegError: The id cannot be one.
    """
    if not _RUN_ID.fullmatch(run_id):
        raise MedsegError(f"{run_id}: neither models:/NAME/VERSION nor an MLflow run id")
    store = find_store(tracking_uri)
    with patience(SECONDS):
        found = open_client(store).search_model_versions(f"run_id = '{run_id}'")
    newest: dict[str, str] = {}
    for version in sorted(found, key=lambda v: int(v.version)):
        newest[version.name] = str(version.version)
    return newest


def resolve(where: str | Path, *, tracking_uri: str | None = None) -> Path:
    """Return the local folder of a model, downloading it if need be.

    Args:
        where: A model folder, ``models:/NAME@ALIAS``, ``models:/NAME/3``, ``models:/m-...``,
            ``runs:/RUN_ID/model`` or a run id.
        tracking_uri: The store, as in :meth:`TrackedRun.start`.

    Returns:
        The folder with ``model.json`` and ``weights.safetensors``. A download lasts as long as the
        process.

    Raises:
        MedsegError: There is no such model, it is not medseg's, or holds a file that may run code
            when opened.
    """
    from mlflow.exceptions import MlflowException

    text = str(where)
    if not text.startswith(("models:/", "runs:/")) and not _is_run_id(text):
        check_safe(Path(where))
        return Path(where)
    store = find_store(tracking_uri)
    with patience(SECONDS):
        try:
            location = _location(open_client(store), text)
            folder = _download(f"{location.rstrip('/')}/{_INSIDE}", store.uri)
        except (MlflowException, OSError) as error:
            raise _not_found(store, text, error) from None
    check_safe(folder)
    return folder


def check_safe(folder: Path) -> None:
    """Refuse a folder that is no model, or that holds more than plain data.

    Raises:
        MedsegError: A needed file is missing, or a file's format may run code when opened.
    """
    weights = "weights.safetensors"
    # The weights of an ensemble lie in the folders of its members.
    for needed, places in (("model.json", ("",)), (weights, ("", "*/"))):
        if not any(any(folder.glob(f"{place}{needed}")) for place in places):
            raise MedsegError(f"{folder}: not a model folder, there is no {needed}")
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or (path.is_file() and path.suffix.lower() not in SAFE):
            raise MedsegError(
                f"{path}: a model folder holds weights as safetensors and texts, no links and no "
                f"other formats, as some run code when opened\n  remove the file if you know it"
            )


def _is_run_id(text: str) -> bool:
    return bool(_RUN_ID.fullmatch(text)) and not Path(text).exists()


def _location(client: "MlflowClient", text: str) -> str:
    """Return where the files of a model lie, through the given client only.

    ``mlflow.artifacts`` would look ``models:/`` up in the store of MLflow's global state.
    """
    if text.startswith("models:/"):
        return _model_location(client, text.removeprefix("models:/"))
    run_id, _, name = text.removeprefix("runs:/").partition("/")
    outputs = client.get_run(run_id).outputs
    logged = [
        client.get_logged_model(o.model_id) for o in (outputs.model_outputs if outputs else [])
    ]
    named = [model for model in logged if model.name == (name or "model")]
    if not named:
        raise MedsegError(f"{text}: the run has no model {name or 'model'!r}")
    latest = max(named, key=lambda model: model.creation_timestamp)
    return str(latest.artifact_location)


def _model_location(client: "MlflowClient", text: str) -> str:
    if re.fullmatch(r"m-[0-9a-f]{32}", text):
        return str(client.get_logged_model(text).artifact_location)
    version: ModelVersion
    if "@" in text:
        name, _, alias = text.rpartition("@")
        version = client.get_model_version_by_alias(name, alias)
    else:
        name, _, number = text.rpartition("/")
        if not number.isdecimal():
            raise MedsegError(
                f"models:/{text}: name a version (models:/{text}/1) or an alias "
                f"(models:/{text}@{CHAMPION})"
            )
        version = client.get_model_version(name, number)
    log.info("models:/%s is version %s of %s", text, version.version, version.name)
    return str(client.get_model_version_download_uri(version.name, version.version))


def _download(address: str, tracking_uri: str) -> Path:
    import mlflow

    scratch = tempfile.mkdtemp(prefix="medseg-model-")
    atexit.register(shutil.rmtree, scratch, ignore_errors=True)
    return Path(
        mlflow.artifacts.download_artifacts(
            artifact_uri=address, dst_path=scratch, tracking_uri=tracking_uri
        )
    )


def _not_found(store: Store, where: str, error: Exception) -> MedsegError:
    return MedsegError(
        f"{where}: no such model at {store.shown} ({reason(store, error)})\n"
        f"  see the registered ones with mlflow ui, or name another store with --tracking-uri"
    )
