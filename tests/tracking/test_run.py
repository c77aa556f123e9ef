import json
import math
import socket
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from medseg.errors import MedsegError
from medseg.tracking.run import TrackedRun
from medseg.tracking.store import open_client


def begin(store, folder, **others):
    given = {"experiment": "cells", "name": "fold 0", "tracking_uri": store.uri, **others}
    return TrackedRun.start(folder, **given)


def stored(store, run):
    return open_client(store).get_run(run.run_id)


def history(store, run, key):
    points = open_client(store).get_metric_history(run.run_id, key)
    return [(point.step, point.value) for point in sorted(points, key=lambda point: point.step)]


class Flaky:
    """A client whose store can be away; what it did before the line broke stays done."""

    def __init__(self, client):
        self.client, self.away, self.lose_answers = client, False, False

    def __getattr__(self, name):
        method = getattr(self.client, name)

        def call(*given, **named):
            if self.away:
                raise ConnectionError("nobody answers")
            answer = method(*given, **named)
            if self.lose_answers:
                raise TimeoutError("the answer was lost")
            return answer

        return call


@contextmanager
def flaky(run, monkeypatch):
    monkeypatch.setattr("medseg.tracking.outbox.PAUSE_SECONDS", 0.0)
    monkeypatch.setattr("medseg.tracking.outbox.REST_PER_ATTEMPT", 0.0)
    client = Flaky(run._client)
    monkeypatch.setattr(run, "_client", client)
    yield client


def test_a_run_holds_its_params_tags_curves_and_files(store, tmp_path):
    (tmp_path / "report.html").write_text("<p>worst cases first</p>")
    with begin(store, tmp_path / "run", tags={"split": "abc"}) as run:
        run.params(
            {"network": {"name": "msd", "depth": 60}, "seed": 7, "spacing": ["1 mm", "2 mm"]}
        )
        run.tags({"git": {"commit": "f00"}})
        run.metrics({"loss": 0.5, "dice/cell (left)": 0.8}, step=0)
        run.metrics({"loss": 0.4, "dice/cell (left)": 0.9}, step=1)
        run.file(tmp_path / "report.html", "evaluation")
        run.text("data: ...", "job.yaml")
        run.table([{"case": "a", "dice": 0.9}, {"case": "b", "hd95": 2.0}], "cases.csv")

    found = stored(store, run)
    assert found.info.status == "FINISHED"
    assert found.data.params == {
        "network.name": "msd",
        "network.depth": "60",
        "seed": "7",
        "spacing": '["1 mm", "2 mm"]',
    }
    assert found.data.tags["git.commit"] == "f00"
    assert found.data.tags["split"] == "abc"
    assert history(store, run, "dice/cell_left") == [(0, 0.8), (1, 0.9)]
    artifacts = tmp_path / "mlartifacts" / "cells" / run.run_id / "artifacts"
    assert (artifacts / "evaluation/report.html").read_text() == "<p>worst cases first</p>"
    assert (artifacts / "job.yaml").read_text() == "data: ..."
    assert (artifacts / "cases.csv").read_text() == "case,dice,hd95\na,0.9,\nb,,2.0\n"
    assert run.warnings == []


@pytest.mark.parametrize(
    ("error", "status"),
    [(RuntimeError, "FAILED"), (KeyboardInterrupt, "KILLED"), (SystemExit, "KILLED")],
)
def test_a_run_that_ends_early_says_how(store, tmp_path, error, status):
    with pytest.raises(error), begin(store, tmp_path / "run") as run:
        raise error

    assert stored(store, run).info.status == status


def test_infinity_and_nan_are_counted_and_never_stored(store, tmp_path):
    with begin(store, tmp_path / "run") as run:
        run.metrics({"hd95": 3.0}, step=0)
        run.metrics({"hd95": math.inf, "nsd": math.nan}, step=1)
        run.metrics({"hd95": -math.inf}, step=2)

    assert history(store, run, "hd95") == [(0, 3.0)]
    assert history(store, run, "nsd") == []
    assert history(store, run, "not_finite/hd95") == [(1, 1.0), (2, 2.0)]
    assert history(store, run, "not_finite/nsd") == [(1, 1.0)]


def test_two_classes_whose_names_collide_keep_a_curve_each(store, tmp_path):
    with begin(store, tmp_path / "run") as run:
        run.metrics({"dice/kidney(left)": 0.1, "dice/kidney_left": 0.9}, step=0)

    assert sorted(stored(store, run).data.metrics.values()) == [0.1, 0.9]


def test_a_param_of_six_thousand_characters_is_kept_and_a_longer_one_says_that_it_was_cut(
    store, tmp_path
):
    with begin(store, tmp_path / "run") as run:
        run.params({"whole": "a" * 6000, "longer": "a" * 7000})

    params = stored(store, run).data.params
    assert params["whole"] == "a" * 6000
    assert params["longer"].endswith("(7000 characters, cut)")


def test_more_params_than_one_call_takes_all_arrive(store, tmp_path):
    with begin(store, tmp_path / "run") as run:
        run.params({f"setting_{i}": i for i in range(250)})

    assert len(stored(store, run).data.params) == 250


def test_a_resume_goes_on_with_the_same_run_and_one_history(store, tmp_path):
    first = begin(store, tmp_path / "run")
    first.params({"lr": 0.1, "seed": 7})
    first.metrics({"loss": 0.5}, step=0)
    first.metrics({"loss": 0.4}, step=1)
    first.finish("KILLED")

    with begin(store, tmp_path / "run", resume=True) as run:
        assert stored(store, run).info.status == "RUNNING"
        run.params({"lr": 0.01, "seed": 7})
        run.metrics({"loss": 0.4}, step=1)
        run.metrics({"loss": 0.3}, step=2)

    assert run.run_id == first.run_id
    assert history(store, run, "loss") == [(0, 0.5), (1, 0.4), (2, 0.3)]
    found = stored(store, run)
    assert found.data.params == {"lr": "0.1", "seed": "7"}
    assert found.data.tags["resume.1.lr"] == "0.01"
    assert "resume.1.seed" not in found.data.tags
    assert found.info.status == "FINISHED"
    assert run.warnings == []


def test_a_run_resumed_in_another_folder_has_each_step_once(store, tmp_path):
    with begin(store, tmp_path / "one") as first:
        first.metrics({"loss": 0.5}, step=0)
        first.metrics({"loss": 0.4}, step=1)
    with begin(store, tmp_path / "two", run_id=first.run_id) as run:
        run.metrics({"loss": 0.4}, step=1)
        run.metrics({"loss": 0.3}, step=2)

    assert history(store, run, "loss") == [(0, 0.5), (1, 0.4), (2, 0.3)]


def test_a_run_deleted_under_the_training_is_one_warning(store, tmp_path):
    with begin(store, tmp_path / "run") as run:
        open_client(store).delete_run(run.run_id)
        for step in range(5):
            run.metrics({"loss": 0.5}, step=step)

    assert sum("not logged" in warning for warning in run.warnings) <= 2


def test_a_damaged_state_file_is_named_with_the_remedy(store, tmp_path):
    with begin(store, tmp_path / "run") as run:
        run.metrics({"loss": 0.5}, step=0)
    (tmp_path / "run/tracking.json").write_text("")

    with pytest.raises(MedsegError, match=r"tracking\.json: damaged"):
        begin(store, tmp_path / "run", resume=True)


def test_another_run_in_a_used_folder_is_refused(store, tmp_path):
    with begin(store, tmp_path / "run") as run:
        run.metrics({"loss": 0.5}, step=0)

    with pytest.raises(MedsegError, match="metrics of another run"):
        begin(store, tmp_path / "run")


def test_resuming_a_run_that_the_store_does_not_know_is_refused(store, tmp_path):
    with pytest.raises(MedsegError, match="refuses run 0123"):
        begin(store, tmp_path / "run", run_id="0123")


def test_an_outage_in_the_middle_leaves_no_gap_no_duplicate_and_one_warning(
    store, tmp_path, monkeypatch
):
    with begin(store, tmp_path / "run") as run, flaky(run, monkeypatch) as client:
        for step in range(9):
            client.away = 3 <= step < 6
            run.metrics({"loss": 1.0 / (step + 1)}, step=step)

    assert history(store, run, "loss") == [(step, 1.0 / (step + 1)) for step in range(9)]
    assert len(run.warnings) == 1
    assert "the training goes on" in run.warnings[0]


def test_values_whose_answer_was_lost_are_sent_again_and_stored_once(store, tmp_path, monkeypatch):
    with begin(store, tmp_path / "run") as run, flaky(run, monkeypatch) as client:
        client.lose_answers = True
        run.metrics({"loss": 0.5, "dice": 0.8}, step=0)
        client.lose_answers = False
        run.metrics({"loss": 0.4}, step=1)

    assert history(store, run, "loss") == [(0, 0.5), (1, 0.4)]
    assert history(store, run, "dice") == [(0, 0.8)]


def test_what_a_killed_process_could_not_send_is_sent_on_resume(store, tmp_path, monkeypatch):
    run = begin(store, tmp_path / "run")
    run.metrics({"loss": 0.5}, step=0)
    with flaky(run, monkeypatch) as client:
        client.away = True
        run.metrics({"loss": 0.4}, step=1)
    # Killed: nothing ends the run.
    with begin(store, tmp_path / "run", resume=True) as resumed:
        resumed.metrics({"loss": 0.3}, step=2)

    assert history(store, resumed, "loss") == [(0, 0.5), (1, 0.4), (2, 0.3)]


def test_a_missing_file_is_a_warning_and_the_rest_arrives(store, tmp_path):
    with begin(store, tmp_path / "run") as run:
        run.file(tmp_path / "nowhere.png")
        run.text("here", "here.txt")

    assert any("nowhere.png" in warning for warning in run.warnings)
    assert (tmp_path / "mlartifacts/cells" / run.run_id / "artifacts/here.txt").exists()


def test_an_artifact_folder_that_cannot_be_written_does_not_hold_up_the_curves(store, tmp_path):
    (tmp_path / "mlartifacts").write_text("a file where a folder should be")
    with begin(store, tmp_path / "run") as run:
        run.text("lost", "job.yaml")
        run.metrics({"loss": 0.5}, step=0)

    assert history(store, run, "loss") == [(0, 0.5)]
    assert run.warnings


def closed_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def test_a_server_that_is_down_stops_nothing_and_the_metrics_are_in_the_folder(tmp_path):
    begun = time.monotonic()
    uri = f"http://127.0.0.1:{closed_port()}"
    with TrackedRun.start(tmp_path, experiment="cells", name="a", tracking_uri=uri) as run:
        run.params({"lr": 0.1})
        for step in range(100):
            run.metrics({"loss": 0.5}, step=step)
        run.text("here", "here.txt")

    assert time.monotonic() - begun < 30  # MLflow's own defaults: 246 s for one call
    assert not run.connected
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").open()]
    assert [line["step"] for line in lines] == list(range(100))
    assert len(run.warnings) <= 3


def test_a_server_that_was_down_at_first_gets_the_whole_run_on_resume(store, tmp_path):
    uri = f"http://127.0.0.1:{closed_port()}"
    given = {"experiment": "cells", "name": "a"}
    with TrackedRun.start(tmp_path / "run", tracking_uri=uri, **given) as away:
        away.metrics({"loss": 0.5}, step=0)
    with begin(store, tmp_path / "run", resume=True) as run:
        run.metrics({"loss": 0.4}, step=1)

    assert history(store, run, "loss") == [(0, 0.5), (1, 0.4)]


def test_a_server_that_accepts_and_never_answers_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr("medseg.tracking.run.REQUEST_SECONDS", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        threading.Thread(target=silent.accept, daemon=True).start()
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        begun = time.monotonic()
        with TrackedRun.start(tmp_path, experiment="cells", name="a", tracking_uri=uri) as run:
            run.metrics({"loss": 0.5}, step=0)

    assert time.monotonic() - begun < 30
    assert not run.connected


def test_it_says_where_to_look(store, tmp_path):
    run = begin(store, tmp_path / "run")

    assert run.look() == f"mlflow ui --backend-store-uri sqlite:///{tmp_path}/mlflow.db"
    run.finish()


def test_finishing_twice_is_finishing_once(store, tmp_path):
    with begin(store, tmp_path / "run") as run:
        run.finish("FAILED")

    assert stored(store, run).info.status == "FAILED"


def test_the_state_on_disk_holds_no_password(tmp_path):
    uri = f"http://anna:secret@127.0.0.1:{closed_port()}"
    with TrackedRun.start(tmp_path, experiment="cells", name="a", tracking_uri=uri) as run:
        run.metrics({"loss": 0.5}, step=0)

    kept = "".join(path.read_text() for path in Path(tmp_path).iterdir())
    assert "secret" not in kept + "".join(run.warnings)
