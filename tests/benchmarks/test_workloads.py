from email import message_from_bytes
from io import BytesIO

import pytest
from PIL import Image

from app.bundle import InputSpec
from app.errors import ServiceError
from app.images import decode_image
from benchmarks.workloads import WORKLOADS, Workload, broken_files, http_request

SIZES = {"png": (32, 32), "jpeg": (640, 480), "photo": (4000, 3000), "digit": (28, 28)}


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.name)
def test_files_are_what_the_title_says(workload: Workload) -> None:
    files = workload.make()
    assert len(set(files)) == len(files) >= 2
    for file in files:
        with Image.open(BytesIO(file)) as image:
            assert image.size == SIZES[workload.name]
            assert Image.MIME[image.format or ""] == workload.media_type


def test_a_large_photograph_is_as_heavy_as_a_cameras() -> None:
    photo = next(workload for workload in WORKLOADS if workload.name == "photo")
    assert all(1_000_000 < len(file) < 6_000_000 for file in photo.make())


def test_broken_files_are_broken_and_look_like_images() -> None:
    png = next(workload for workload in WORKLOADS if workload.name == "png")
    files = broken_files(png.make())
    for file in files:
        with pytest.raises(ServiceError):
            decode_image(file, InputSpec(channels=3, height=32, width=32))
    assert [file.startswith(b"\x89PNG") for file in files] == [True, True, False]


def test_a_raw_request_is_whole() -> None:
    head, _, body = http_request("/there?a=b", b"content", "image/png", "raw").partition(
        b"\r\n\r\n"
    )
    line, _, fields = head.partition(b"\r\n")
    assert line == b"POST /there?a=b HTTP/1.1"
    headers = message_from_bytes(fields)
    assert headers["Content-Type"] == "image/png"
    assert headers["Content-Length"] == "7" and body == b"content"


def test_a_form_holds_the_file() -> None:
    head, _, body = http_request("/", b"content", "image/png", "multipart").partition(b"\r\n\r\n")
    fields = head.partition(b"\r\n")[2]
    assert message_from_bytes(fields)["Content-Length"] == str(len(body))
    form = message_from_bytes(fields + b"\r\n\r\n" + body)
    (part,) = [part for part in form.walk() if not part.is_multipart()]
    assert part.get_param("name", header="content-disposition") == "file"
    assert part.get_content_type() == "image/png"
    assert part.get_payload(decode=True) == b"content"
