"""One training as one run in MLflow, which may fail without the training noticing.

Everything is logged by explicit calls on an explicit client: no autologging, no global state, no
threads. Metrics go to the run's own folder first; see :mod:`medseg.tracking.history`.
"""

import json
import logging
import shlex
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from medseg.errors import MedsegError
from medseg.tracking.history import METRICS_FILE, History, Point
from medseg.tracking.names import Slugs
from medseg.tracking.outbox import Outbox, Record
from medseg.tracking.plain import csv_text, cut, flatten, parts
from medseg.tracking.store import (
    Store,
    find_experiment,
    find_store,
    is_refusal,
    open_client,
    patience,
    reason,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

log = logging.getLogger(__name__)

Status = Literal["FINISHED", "FAILED", "KILLED"]

STATE_FILE = "tracking.json"
LONGEST_PARAM, LONGEST_TAG = 6000, 8000
METRICS_A_CALL, OTHERS_A_CALL = 1000, 100
# What one call may cost a training when the server is slow, and its end, where all must go out.
REQUEST_SECONDS, UPLOAD_SECONDS = 10, 120
CALL_SECONDS, LAST_CALL_SECONDS = 10.0, 60.0


class TrackedRun:
    """A run of one training; make it with :meth:`start`.

    As a context manager it ends the run as FINISHED, as KILLED after Ctrl-C or ``SystemExit``, or
    as FAILED after any other error. No method raises because of the server: what cannot be sent
    waits, is tried again at later calls, and one warning says so (``warnings`` keeps it).
    """

    def __init__(
        self,
        folder: Path,
        store: Store,
        *,
        experiment: str,
        name: str,
        run_id: str | None,
        tags: Mapping[str, str],
    ) -> None:
        self.folder = folder
        self.store = store
        self.run_id = run_id
        self.experiment = experiment
        self.experiment_id: str | None = None
        self.warnings: list[str] = []
        self._reasons: set[str] = set()
        self._name, self._tags = name, dict(tags)
        self._resumed, self._resumes = run_id is not None, 0
        self._client: MlflowClient | None = None
        self._params: dict[str, str] = {}
        self._param_slugs, self._tag_slugs, self._file_slugs = Slugs(), Slugs(), Slugs()
        self._begun, self._ended = False, False
        state = _read_state(folder)
        # A run whose creation timed out may exist all the same; this tells it from any other.
        self._creation = str(state.get("creation") or uuid.uuid4().hex)
        same = state.get("run_id") == run_id
        self._delivered = int(state.get("delivered", 0)) if same else 0
        self.history = History(folder)
        self._numbers, self._files = (
            self._outbox("takes no records"),
            self._outbox("takes no files"),
        )

    @classmethod
    def start(
        cls,
        folder: Path,
        *,
        experiment: str,
        name: str,
        tracking_uri: str | None = None,
        run_id: str | None = None,
        resume: bool = False,
        tags: Mapping[str, str] | None = None,
    ) -> "TrackedRun":
        """Begin a run, or go on with one.

        Args:
            folder: The training's own folder, for ``metrics.jsonl`` and ``tracking.json``.
            experiment: Name of the experiment in MLflow; made if need be.
            name: Name of the run.
            tracking_uri: The store; MLFLOW_TRACKING_URI, else ``sqlite:///mlflow.db``, if None.
            run_id: The run to go on with.
            resume: Go on with the run that the folder's ``tracking.json`` names; where tracking
                never reached the server, that is a new run with the whole history.
            tags: Tags of the run.

        Raises:
            MedsegError: The store's address is unusable, the run is unknown there, the experiment
                was deleted, or the folder holds another run. A server that does not answer is no
                error.
        """
        folder = Path(folder)
        store = find_store(tracking_uri)
        state = _read_state(folder)
        resume = resume or run_id is not None
        if not resume and (state or (folder / METRICS_FILE).exists()):
            raise MedsegError(
                f"{folder}: there are metrics of another run; resume that run, or name an empty "
                f"folder"
            )
        run_id = run_id or state.get("run_id")
        run = cls(folder, store, experiment=experiment, name=name, run_id=run_id, tags=tags or {})
        run._begin()
        return run

    def __enter__(self) -> "TrackedRun":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.finish("FINISHED")
        elif issubclass(kind, KeyboardInterrupt | SystemExit):
            self.finish("KILLED")
        else:
            self.finish("FAILED")

    @property
    def connected(self) -> bool:
        """Whether the run exists in the store, as far as we know."""
        return self._client is not None

    @property
    def client(self) -> "MlflowClient":
        """The client of the run's store.

        Raises:
            MedsegError: The run never reached the store.
        """
        if self._client is None:
            raise MedsegError(
                f"tracking: {self.store.shown} has not answered since the run began, so there is "
                f"no run to log to\n  everything is in {self.folder}"
            )
        return self._client

    def look(self) -> str:
        """Return where a person finds the run: an address, or the command that shows it."""
        if self.store.uri.startswith("http"):
            place = f"experiments/{self.experiment_id}/runs/{self.run_id}"
            return f"{self.store.shown}/#/{place}"
        return f"mlflow ui --backend-store-uri {shlex.quote(self.store.shown)}"

    def params(self, settings: Mapping[str, Any]) -> None:
        """Log settings; nested ones as ``network.depth``, cut at 6000 characters.

        MLflow never changes a param. One that differs from an earlier part of the run becomes the
        tag ``resume.N.<param>``, N counting the resumes.
        """
        flat = {
            self._param_slugs(key): cut(value, LONGEST_PARAM)
            for key, value in flatten(settings).items()
        }
        self._put(f"{len(flat)} params", lambda client, run_id: self._send_params(flat))

    def tags(self, tags: Mapping[str, Any]) -> None:
        """Set tags, nested ones as ``git.commit``; a later value replaces an earlier one."""
        flat = {self._tag_slugs(k): cut(v, LONGEST_TAG) for k, v in flatten(tags).items()}
        self._put(f"{len(flat)} tags", lambda client, run_id: self._send_tags(flat))

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Log the values of one step, in the run's folder first, then in one call to the store.

        A value that is infinite or NaN is never sent; ``not_finite/<name>`` counts them. A value
        that was logged for the same step before a resume is left as it was.

        Raises:
            OSError: The run's own folder cannot be written.
        """
        points = self.history.add(values, step, time.time_ns() // 1_000_000)
        self._put_points(points, len(self.history.points), f"metrics of step {step}")
        self._flush(CALL_SECONDS)

    def file(self, path: Path, folder: str | None = None) -> None:
        """Upload a file, or all files of a folder, into a folder of the run's artifacts."""
        into = self._file_slugs(folder) if folder else None

        def send(client: "MlflowClient", run_id: str) -> None:
            if not path.exists():
                raise FileNotFoundError(f"{path} does not exist")
            upload = client.log_artifacts if path.is_dir() else client.log_artifact
            upload(run_id, str(path), into)

        self._put(str(path), send, files=True)

    def text(self, text: str, file: str) -> None:
        """Write a text as an artifact, e.g. ``job.yaml``."""
        name = self._file_slugs(file)
        self._put(file, lambda client, run_id: client.log_text(run_id, text, name), files=True)

    def table(self, rows: Sequence[Mapping[str, Any]], file: str) -> None:
        """Write rows as a CSV artifact, which MLflow shows as a table, e.g. ``cases.csv``.

        The columns are all keys, in the order of their first appearance.
        """
        self.text(csv_text(rows), file)

    def finish(self, status: Status = "FINISHED") -> None:
        """Send what waits, for a minute at most, and end the run; later calls do nothing."""
        if self._ended:
            return
        self._ended = True
        self._flush(LAST_CALL_SECONDS, insist=True)
        self._put(
            f"status {status}",
            lambda client, run_id: client.set_terminated(run_id, status),
            flush=False,
        )
        self._numbers.flush(LAST_CALL_SECONDS, insist=True)
        waiting = len(self._numbers) + len(self._files)
        if waiting:
            self._warn(
                f"tracking: {waiting} record(s) never reached {self.store.shown}; the metrics are "
                f"in {self.history.path}"
            )

    # Sending -------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Connect; a server that says no is the user's to mend, one that is silent is not."""
        unsent = self.history.points[self._delivered :]
        self._put("the run", lambda client, run_id: None, flush=False)
        self._numbers.flush(CALL_SECONDS)
        self._begun = True
        self._put_points(unsent, len(self.history.points), "earlier metrics")
        self._flush(CALL_SECONDS)

    def _outbox(self, fault: str) -> Outbox:
        def on_refused(record: Record, error: Exception) -> None:
            if not self._begun:
                raise _refused_at_start(self.store, self.run_id, error) from None
            why = reason(self.store, error)
            # One warning a reason: a deleted run refuses the metrics of every step.
            if why not in self._reasons:
                self._reasons.add(why)
                self._warn(f"tracking: {record.what} not logged: {why}")

        def on_outage(error: Exception) -> None:
            self._warn(
                f"tracking: {self.store.shown} {fault} "
                f"({reason(self.store, error)}); the training goes on, metrics are kept in "
                f"{self.history.path} and sent when it does"
            )

        def on_return(waiting: int) -> None:
            log.info("tracking: %s answers again; %d more to send", self.store.shown, waiting)

        return Outbox(
            is_refusal=is_refusal, on_refused=on_refused, on_outage=on_outage, on_return=on_return
        )

    def _put(
        self,
        what: str,
        send: Callable[["MlflowClient", str], object],
        *,
        files: bool = False,
        flush: bool = True,
    ) -> None:
        def connected() -> None:
            with patience(REQUEST_SECONDS):
                client, run_id = self._connect()
            with patience(UPLOAD_SECONDS if files else REQUEST_SECONDS):
                send(client, run_id)

        (self._files if files else self._numbers).put(Record(what, connected))
        if flush:
            self._flush(CALL_SECONDS)

    def _put_points(self, points: Sequence[Point], end: int, what: str) -> None:
        """Queue points; ``end`` is the number of lines in the file up to the last of them."""
        for begin in range(0, len(points), METRICS_A_CALL):
            part = points[begin : begin + METRICS_A_CALL]
            delivered = end - len(points) + begin + len(part)
            self._put(what, self._sender(part, delivered), flush=False)

    def _sender(
        self, points: Sequence[Point], delivered: int
    ) -> Callable[["MlflowClient", str], None]:
        def send(client: "MlflowClient", run_id: str) -> None:
            from mlflow.entities import Metric

            client.log_batch(
                run_id,
                metrics=[
                    Metric(point.key, point.value, point.time, point.step)
                    for point in points
                    if point.value is not None
                ],
            )
            self._delivered = max(self._delivered, delivered)
            self._write_state()

        return send

    def _flush(self, seconds: float, *, insist: bool = False) -> None:
        self._numbers.flush(seconds, insist=insist)
        # A server that takes no numbers takes no files; do not wait for it twice.
        if not self._numbers.resting:
            self._files.flush(seconds, insist=insist)

    def _connect(self) -> tuple["MlflowClient", str]:
        """Return the client and the run's id; the first call that gets through makes the run."""
        if self._client is not None and self.run_id is not None:
            return self._client, self.run_id
        client = open_client(self.store)
        run = self._reopen(client) if self._resumed else self._create(client)
        self.run_id, self.experiment_id = run.info.run_id, run.info.experiment_id
        self._params = dict(run.data.params)
        self._client = client
        self._write_state()
        return client, run.info.run_id

    def _create(self, client: "MlflowClient") -> "Run":
        experiment_id = find_experiment(client, self.store, self.experiment)
        mark = "medseg.creation"
        found = client.search_runs(
            [experiment_id], f"tags.`{mark}` = '{self._creation}'", max_results=1
        )
        if found:
            return found[0]
        tags = {self._tag_slugs(k): cut(v, LONGEST_TAG) for k, v in flatten(self._tags).items()}
        return client.create_run(
            experiment_id,
            run_name=self._name,
            tags={"mlflow.source.name": "medseg", **tags, mark: self._creation},
        )

    def _reopen(self, client: "MlflowClient") -> "Run":
        run = client.get_run(str(self.run_id))
        self._resumes = int(run.data.tags.get("medseg.resumes", "0")) + 1
        client.update_run(run.info.run_id, status="RUNNING")
        client.set_tag(run.info.run_id, "medseg.resumes", str(self._resumes))
        if not self.history.points:
            # The run was begun in another folder; the store knows which steps it has.
            for key in run.data.metrics:
                past = client.get_metric_history(run.info.run_id, key)
                self.history.skip((point.key, point.step) for point in past)
        return run

    def _send_params(self, flat: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        client, run_id = self._connect()
        fresh = {key: value for key, value in flat.items() if key not in self._params}
        changed = {
            f"resume.{self._resumes}.{key}": value
            for key, value in flat.items()
            if self._params.get(key, value) != value
        }
        for part in parts(fresh.items(), OTHERS_A_CALL):
            client.log_batch(run_id, params=[Param(key, value) for key, value in part])
            self._params.update(part)
        self._send_tags(changed)

    def _send_tags(self, flat: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        client, run_id = self._connect()
        for part in parts(flat.items(), OTHERS_A_CALL):
            client.log_batch(run_id, tags=[RunTag(key, value) for key, value in part])

    def _write_state(self) -> None:
        """Keep what a resume needs, replacing the file in one step."""
        state = {
            "tracking_uri": self.store.shown,
            "experiment": self.experiment,
            "run_id": self.run_id,
            "creation": self._creation,
            "delivered": self._delivered,
        }
        fresh = self.folder / f"{STATE_FILE}.new"
        fresh.write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")
        fresh.replace(self.folder / STATE_FILE)

    def _warn(self, message: str) -> None:
        if message not in self.warnings:
            self.warnings.append(message)
            log.warning("%s", message)


def _read_state(folder: Path) -> dict[str, Any]:
    file = folder / STATE_FILE
    if not file.exists():
        return {}
    try:
        state: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise MedsegError(
            f"{file}: damaged ({error})\n  remove it and resume: a new run gets the whole history"
        ) from None
    return state


def _refused_at_start(store: Store, run_id: str | None, error: Exception) -> MedsegError:
    if isinstance(error, MedsegError):
        return error
    what = f"run {run_id}" if run_id else "a new run"
    return MedsegError(f"tracking: {store.shown} refuses {what}: {reason(store, error)}")
