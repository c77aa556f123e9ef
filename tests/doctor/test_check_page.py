"""check.html: stands alone, escapes what it is given, shows the faulty cases first."""

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image as Picture

from medseg.data import LabelMap, ObjectMap
from medseg.doctor import Finding, write_report
from medseg.doctor.facts import CaseFacts
from medseg.doctor.thumbnail import SIDE, thumbnail
from medseg.geometry import Grid
from medseg.images import Image

MAP = LabelMap({"background": 0, "cell": 1})


def square(value: int = 1) -> tuple[Image, Image]:
    grid = Grid((60, 80), (1.0, 1.0))
    labels = np.zeros((60, 80), np.uint8)
    labels[20:40, 30:60] = value
    return Image(100 + 50 * labels.clip(0, 1)[None], grid, "CYX", ("light",)), Image(
        labels, grid, "YX"
    )


def colours_near(picture: bytes, x: float, y: float) -> np.ndarray:
    """Return the mean colour around a place in the picture, as shares of its sides."""
    pixels = np.asarray(Picture.open(io.BytesIO(picture)).convert("RGB")).astype(int)
    row, column = round(y * pixels.shape[0]), round(x * pixels.shape[1])
    return pixels[row - 2 : row + 3, column - 2 : column + 3].reshape(-1, 3)


@pytest.mark.parametrize(("kind", "labels"), [("semantic", MAP), ("instance", ObjectMap)])
def test_a_thumbnail_has_the_border_in_yellow_where_it_is(kind, labels):
    image, drawn = square()
    made = labels if kind == "semantic" else labels({"background": 0, "cell": 1})
    picture = thumbnail("a", image, drawn, made, kind)

    assert max(Picture.open(io.BytesIO(picture)).size) == SIDE
    border = colours_near(picture, 30 / 80, 30 / 60)
    assert (border[:, 0] - border[:, 2]).max() > 100, "red and green without blue is yellow"
    inside = colours_near(picture, 45 / 80, 30 / 60)
    assert np.ptp(inside, axis=1).max() < 20, "grey"


def test_values_that_the_card_does_not_name_are_red():
    image, drawn = square(77)
    border = colours_near(thumbnail("a", image, drawn, MAP, "semantic"), 30 / 80, 30 / 60)

    reddest = border[np.argmax(border[:, 0] - border[:, 1])]
    assert reddest[0] - reddest[1] > 80


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.pictures: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag == "img":
            self.pictures.append(given["src"])
        self.links += [v for k, v in given.items() if k in ("href", "src") and v]


def test_a_report_stands_alone_and_shows_the_faulty_case_first(tmp_path):
    image, drawn = square()
    picture = thumbnail("a", image, drawn, MAP, "semantic")
    cases = [CaseFacts(name, "dish", thumbnail=picture) for name in ("a", "b", "c")]
    finding = Finding("error", "islands", "b", "<script>alert(1)</script>", "none", "look")
    path = tmp_path / "check.html"

    write_report(path, name="cells & more", facts={"cases": "3"}, findings=[finding], cases=cases)

    html = path.read_text()
    reader = Reader()
    reader.feed(html)
    assert "<script" not in html
    assert "cells &amp; more" in html
    assert re.findall(r"<strong>([abc])</strong>", html) == ["b", "a", "c"]
    assert len(reader.pictures) == 3
    assert all(link.startswith("data:image/jpeg;base64,") for link in reader.links)
    encoded = reader.pictures[0].split(",")[1]
    assert base64.b64decode(encoded) == picture
    assert list(tmp_path.iterdir()) == [path], "nothing half written is left"
