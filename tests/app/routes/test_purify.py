import base64
from io import BytesIO

import httpx
import numpy as np
import pytest
from PIL import Image

from app.schemas import Purification
from tests.images import PGM_TYPE, encoded, multipart, pgm

GREY = pgm(102)


def purify(
    client: httpx.Client, accept: str | None = None, content: bytes = GREY
) -> httpx.Response:
    headers = {**PGM_TYPE, **({"Accept": accept} if accept else {})}
    return client.post("/purify", content=content, headers=headers)


def levels(png: bytes) -> set[int]:
    image = Image.open(BytesIO(png))
    assert (image.format, image.mode, image.size) == ("PNG", "L", (8, 8))
    return set(np.asarray(image).ravel().tolist())


@pytest.mark.parametrize("accept", [None, "*/*", "image/*", "image/png"])
def test_a_png_is_the_default(client: httpx.Client, accept: str | None) -> None:
    answer = purify(client, accept)
    assert answer.headers["content-type"] == "image/png"
    assert levels(answer.content) == {51}  # 3 * 0.4 - 1
    assert answer.headers["x-limbeck-model"] == "tiny@2"
    assert answer.headers["vary"] == "Accept"
    assert "x-limbeck-note" not in answer.headers


def test_numpy_gives_every_digit(client: httpx.Client) -> None:
    answer = purify(client, "application/x-npy")
    purified = np.load(BytesIO(answer.content), allow_pickle=False)
    assert (purified.dtype, purified.shape) == (np.float32, (1, 8, 8))
    assert purified == pytest.approx(np.full((1, 8, 8), 0.2), abs=1e-6)


def test_json_tells_the_shift(client: httpx.Client) -> None:
    answer = Purification.model_validate_json(purify(client, "application/json").content)
    assert levels(base64.b64decode(answer.png_base64)) == {51}
    assert answer.shift_bits > 0.5
    assert answer.over_threshold is True


def test_several_accept_headers_count_as_one(client: httpx.Client) -> None:
    headers = [*PGM_TYPE.items(), ("Accept", "text/html"), ("Accept", "application/x-npy")]
    answer = client.post("/purify", content=GREY, headers=headers)
    assert answer.headers["content-type"] == "application/x-npy"


def test_only_json_pays_for_the_classifier(client: httpx.Client) -> None:
    assert "classify" not in purify(client).headers["server-timing"]
    assert "classify" in purify(client, "application/json").headers["server-timing"]


def test_several_files_give_json_or_numpy(client: httpx.Client) -> None:
    body, headers = multipart(("file", GREY), ("file", pgm(255)))
    answer = client.post("/purify", content=body, headers=headers)
    pngs = [base64.b64decode(Purification.model_validate(e).png_base64) for e in answer.json()]
    assert [levels(png) for png in pngs] == [{51}, {255}]
    npy = client.post("/purify", content=body, headers={**headers, "Accept": "application/x-npy"})
    assert np.load(BytesIO(npy.content), allow_pickle=False).shape == (2, 1, 8, 8)


def test_several_files_do_not_fit_into_one_png(client: httpx.Client) -> None:
    body, headers = multipart(("file", GREY), ("file", GREY))
    answer = client.post("/purify", content=body, headers={**headers, "Accept": "image/png"})
    assert (answer.status_code, answer.json()["code"]) == (406, "not_acceptable")


def test_the_note_on_an_animation_is_a_header(client: httpx.Client) -> None:
    frames = [Image.new("L", (8, 8), level) for level in (255, 0)]
    content = encoded(frames[0], "PNG", save_all=True, append_images=frames[1:])
    answer = purify(client, content=content)
    assert answer.headers["x-limbeck-note"] == "only the first of 2 frames was used"
    assert levels(answer.content) == {255}
