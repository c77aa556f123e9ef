import json
import math

import pandas as pd
import pytest

from medseg.errors import MedsegError
from medseg.evaluation import read_table, to_table, write_json, write_table


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_table_returns_the_very_records_that_were_written(tmp_path, record, suffix):
    records = [
        record("007", 1 / 3, group="NA", settings="tolerance=2 mm", ignored_voxels=12),
        record("nan", None, spacing=(0.1, 1 / 3), spacing_unit="um"),
        record("splits", None, metric="splits", unit="count", status="missing_prediction"),
        record("Müller, <b>", 212.5, metric="hd95", unit="mm", status="empty_prediction"),
    ]

    write_table(records, tmp_path / f"records{suffix}")

    assert read_table(tmp_path / f"records{suffix}") == records
    assert [path.name for path in tmp_path.iterdir()] == [f"records{suffix}"]


def test_an_empty_table_can_be_written_and_read(tmp_path):
    write_table([], tmp_path / "records.csv")

    assert read_table(tmp_path / "records.csv") == []


def test_the_spacing_is_read_by_people_in_the_order_x_y_z(record):
    assert to_table([record("a", 0.5)])["spacing"].tolist() == ["0.8 x 0.8 x 2.5 mm"]


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_no_record_holds_a_number_that_is_not_finite(record, value):
    with pytest.raises(ValueError, match="not finite"):
        record("a", value)


def test_a_value_goes_with_every_status_but_both_empty(record):
    with pytest.raises(ValueError, match="both_empty"):
        record("a", 0.5, status="both_empty")
    with pytest.raises(ValueError, match="None with status ok"):
        record("a", None, status="ok")


def test_an_unknown_status_is_refused(record):
    with pytest.raises(ValueError, match="'fine' is none of"):
        record("a", 0.5, status="fine")


def test_a_broken_write_leaves_the_old_table(tmp_path, record, monkeypatch):
    path = tmp_path / "records.csv"
    write_table([record("old", 0.5)], path)

    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(pd.DataFrame, "to_csv", fail)
    with pytest.raises(OSError, match="disk full"):
        write_table([record("new", 0.6)], path)

    assert [r.case for r in read_table(path)] == ["old"]
    assert [found.name for found in tmp_path.iterdir()] == ["records.csv"]


def test_a_foreign_table_is_refused_with_the_missing_columns(tmp_path):
    (tmp_path / "other.csv").write_text("case,dice\na,0.9\n")

    with pytest.raises(MedsegError, match=r"other\.csv: not a table .* no column group, structure"):
        read_table(tmp_path / "other.csv")


def test_a_broken_row_is_refused_with_its_number(tmp_path, record):
    path = tmp_path / "records.csv"
    write_table([record("a", 0.5), record("b", 0.25)], path)
    path.write_text(path.read_text().replace("0.25", "inf"))

    with pytest.raises(MedsegError, match=r"records\.csv, row 2: b, liver, dice: .*not finite"):
        read_table(path)


def test_a_missing_file_and_another_kind_of_file_are_refused(tmp_path, record):
    with pytest.raises(MedsegError, match=r"nothing\.csv: cannot be read"):
        read_table(tmp_path / "nothing.csv")
    with pytest.raises(MedsegError, match=r"\.csv or \.parquet"):
        read_table(tmp_path / "records.xlsx")
    with pytest.raises(ValueError, match=r"\.csv or \.parquet"):
        write_table([record("a", 0.5)], tmp_path / "records.xlsx")


def test_json_is_written_whole_and_without_infinities(tmp_path):
    file = tmp_path / "summary.json"
    write_json([{"mean": 0.5}], file)

    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json([{"mean": float("nan")}], file)

    assert json.loads(file.read_text()) == [{"mean": 0.5}]
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]
