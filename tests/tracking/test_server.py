"""A real server that is really killed."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
from random_models import images, make_model

from medseg.geometry import Unit
from medseg.tracking.registry import log_model, promote, register, resolve
from medseg.tracking.run import TrackedRun
from medseg.tracking.store import find_store, open_client

pytestmark = pytest.mark.slow


class Server:
    """An MLflow server on a port of its own, with a database and a folder of artifacts."""

    def __init__(self, folder, database):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            self.port = taken.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.folder, self.database = folder, database
        self.process = None

    def start(self):
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"]
        command += ["--port", str(self.port), "--workers", "1"]
        command += ["--backend-store-uri", f"sqlite:///{self.database}"]
        command += ["--artifacts-destination", str(self.folder / "served")]
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self.folder, start_new_session=True
            )
        end = time.monotonic() + 120
        while not self.healthy():
            assert self.process.poll() is None, (self.folder / "server.log").read_text()
            assert time.monotonic() < end, "the server did not start"
            time.sleep(0.5)

    def healthy(self):
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=2) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False

    def kill(self):
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@pytest.fixture
def server(store, tmp_path):
    served = Server(tmp_path, tmp_path / "mlflow.db")
    served.start()
    yield served
    served.kill()


def test_a_server_killed_in_the_middle_and_started_again_has_it_all_once(
    server, tmp_path, monkeypatch
):
    monkeypatch.setattr("medseg.tracking.outbox.PAUSE_SECONDS", 0.0)
    slices = make_model(
        tmp_path / "slices", 2, spacing=(0.5, 0.5), unit=Unit.UM, structures={"b": 0, "cell": 1}
    )
    given = {"experiment": "cells", "name": "a", "tracking_uri": server.uri}
    with TrackedRun.start(tmp_path / "run", **given) as run:
        run.params({"lr": 0.1})
        for step in range(12):
            if step == 4:
                server.kill()
            if step == 8:
                server.start()
                time.sleep(5)  # longer than the rest after an attempt that was refused at once
            run.metrics({"loss": 1.0 / (step + 1), "dice": np.inf}, step=step)
        run.text("here", "here.txt")
        registered = register(
            log_model(run, slices, input_example=images(2)), "cells", tracking_uri=server.uri
        )
        promote("cells", registered.version, tracking_uri=server.uri)

    client = open_client(find_store(server.uri))
    points = client.get_metric_history(run.run_id, "loss")
    assert sorted(p.step for p in points) == list(range(12))
    counts = client.get_metric_history(run.run_id, "not_finite/dice")
    assert sorted(p.value for p in counts) == list(range(1, 13))
    assert client.get_metric_history(run.run_id, "dice") == []
    assert client.get_run(run.run_id).info.status == "FINISHED"
    assert [file.path for file in client.list_artifacts(run.run_id)] == ["here.txt"]
    assert len(run.warnings) == 1
    folder = resolve("models:/cells@champion", tracking_uri=server.uri)
    assert (folder / "model.json").read_bytes() == (slices / "model.json").read_bytes()
