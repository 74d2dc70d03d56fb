import httpx
import pytest
from PIL import Image

from app.schemas import Classification
from tests.images import PGM_TYPE, encoded, gradient, multipart, pgm

GREY = pgm(102)  # 0.4: grey as it is, 0.2 and dark once purified


def classify(
    client: httpx.Client, content: bytes = GREY, **query: str | int | bool
) -> Classification:
    answer = client.post("/classify", content=content, headers=PGM_TYPE, params=query)
    assert answer.status_code == 200, answer.text
    return Classification.model_validate_json(answer.content)


def test_an_image_is_classified_as_it_is_by_default(client: httpx.Client) -> None:
    answer = classify(client)
    assert (answer.label, answer.purified, answer.detection) == ("grey", False, None)
    assert answer.confidence == pytest.approx(0.98, abs=0.02)
    assert (answer.model, answer.version) == ("tiny", 2)
    assert answer.latency_ms.purify is None and answer.latency_ms.classify is not None
    assert (answer.image.format, answer.image.width, answer.image.frames) == ("PNM", 8, 1)


def test_purify_classifies_the_purified_image(client: httpx.Client) -> None:
    answer = classify(client, purify=True)
    assert (answer.label, answer.purified, answer.detection) == ("dark", True, None)
    assert answer.latency_ms.purify is not None


@pytest.mark.parametrize(("purify", "label"), [(True, "dark"), (False, "grey")])
def test_detect_tells_both_labels_and_the_shift(
    client: httpx.Client, purify: bool, label: str
) -> None:
    answer = classify(client, purify=purify, detect=True)
    assert answer.label == label
    assert answer.detection is not None
    assert (answer.detection.label_unpurified, answer.detection.label_purified) == ("grey", "dark")
    assert answer.detection.shift_bits > 0.5
    assert (answer.detection.threshold_bits, answer.detection.over_threshold) == (0.1, True)


def test_what_purification_does_not_move_raises_no_alarm(client: httpx.Client) -> None:
    answer = classify(client, pgm(128), detect=True)
    assert answer.detection is not None
    assert answer.detection.shift_bits < 0.01
    assert answer.detection.over_threshold is False


def test_a_bundle_without_a_threshold_raises_no_alarm(client: httpx.Client) -> None:
    answer = classify(client, detect=True, model="brittle")
    assert answer.detection is not None
    assert answer.detection.over_threshold is None and answer.detection.threshold_bits is None


@pytest.mark.parametrize(("asked", "given"), [(1, 1), (2, 2), (1000, 3)])
def test_top_k_lists_the_most_probable_first(client: httpx.Client, asked: int, given: int) -> None:
    answer = classify(client, top_k=asked)
    probabilities = [entry.probability for entry in answer.top]
    assert len(probabilities) == given
    assert probabilities == sorted(probabilities, reverse=True)
    assert (answer.top[0].label, answer.top[0].probability) == (answer.label, answer.confidence)


def test_a_model_may_be_chosen_by_version(client: httpx.Client) -> None:
    assert classify(client, model="tiny@1").version == 1
    assert classify(client, model="brittle").model == "brittle"


def test_a_form_gives_what_the_raw_body_gives(client: httpx.Client) -> None:
    answer = client.post("/classify", files={"file": ("digit.pgm", GREY)})
    form = Classification.model_validate_json(answer.content)
    assert (form.label, form.confidence) == (classify(client).label, classify(client).confidence)


def test_several_files_give_a_list_in_their_order(client: httpx.Client) -> None:
    body, headers = multipart(("file", pgm(0)), ("file", GREY), ("file", pgm(255)))
    answer = client.post("/classify", content=body, headers=headers)
    labels = [Classification.model_validate(entry).label for entry in answer.json()]
    assert labels == ["dark", "grey", "bright"]


def test_a_body_in_pieces_is_put_together(client: httpx.Client) -> None:
    pieces = (GREY[i : i + 7] for i in range(0, len(GREY), 7))
    answer = client.post("/classify", content=pieces, headers=PGM_TYPE)
    assert Classification.model_validate_json(answer.content).label == "grey"


def test_a_form_in_pieces_is_put_together(client: httpx.Client) -> None:
    body, headers = multipart(("file", GREY), ("file", pgm(255)))
    pieces = (body[i : i + 3] for i in range(0, len(body), 3))
    answer = client.post("/classify", content=pieces, headers=headers)
    assert [entry["label"] for entry in answer.json()] == ["grey", "bright"]


def test_a_large_photograph_is_classified_off_the_event_loop(client: httpx.Client) -> None:
    photograph = encoded(gradient(900, 700), "JPEG", quality=40)
    answer = client.post("/classify", content=photograph, headers={"Content-Type": "image/jpeg"})
    found = Classification.model_validate_json(answer.content)
    assert (found.image.format, found.image.width, found.image.height) == ("JPEG", 900, 700)


def test_of_an_animation_the_answer_says_that_the_first_frame_was_used(
    client: httpx.Client,
) -> None:
    frames = [Image.new("L", (8, 8), level) for level in (255, 0)]
    content = encoded(frames[0], "PNG", save_all=True, append_images=frames[1:])
    answer = classify(client, content)
    assert answer.label == "bright"
    assert (answer.image.frames, answer.image.note) == (2, "only the first of 2 frames was used")


def test_server_timing_and_request_id(client: httpx.Client) -> None:
    answer = client.post("/classify", content=GREY, headers={**PGM_TYPE, "X-Request-ID": "mine-1"})
    assert answer.headers["x-request-id"] == "mine-1"
    stages = [entry.split(";")[0] for entry in answer.headers["server-timing"].split(", ")]
    assert stages == ["read", "decode", "queue", "classify", "encode", "total"]


def test_an_insane_request_id_is_replaced(client: httpx.Client) -> None:
    answer = client.get("/health/live", headers={"X-Request-ID": "a b\tc"})
    assert len(answer.headers["x-request-id"]) == 32
