"""What a stranger may try, against a real server process."""

import json
import signal
import socket
import struct
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from app.formats import MAX_JPEG_SCANS
from tests.bundles import make_bundle
from tests.images import (
    PGM_TYPE,
    bmp_run_lengths,
    encoded,
    exif_bomb,
    gradient,
    jpeg_with,
    many_scans,
    multipart,
    pgm,
    png_bomb,
    png_chunk,
)
from tests.server_process import (
    ROOT,
    TIMEOUT_S,
    Server,
    connected,
    metric,
    peak_mib,
    refusal,
    resident_mib,
    served_address,
    server,
)

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux' /proc")

# An image of 25 megapixels takes 200 MiB while it is decoded, and the sender's 16 MiB stand by.
GROWTH_MIB = 256
# The dearest upload takes half a second of a core of its own; this machine may have others at work.
CPU_S = 3.0


@pytest.fixture(scope="module")
def running(models_dir: Path) -> Iterator[Server]:
    """A server with the limits it has by default."""
    with server(models_dir, default_model="tiny") as shared:
        yield shared


def forget_peak(shared: Server) -> None:
    Path(f"/proc/{shared.process.pid}/clear_refs").write_text("5")


def cpu_s(shared: Server) -> float:
    """Seconds of processor time that the process has used."""
    fields = Path(f"/proc/{shared.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def png_head(side: int, colour_type: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + png_chunk(
        b"IHDR", struct.pack(">IIBBBBB", side, side, 8, colour_type, 0, 0, 0)
    )


def flat_png(side: int, colour_type: int) -> bytes:
    """A PNG of equal pixels, written without ever holding them."""
    channels = {0: 1, 2: 3, 6: 4}[colour_type]
    deflate = zlib.compressobj(1)
    rows = b"".join(deflate.compress(bytes(1 + channels * side)) for _ in range(side))
    return png_head(side, colour_type) + png_chunk(b"IDAT", rows + deflate.flush()) + IEND


IEND = png_chunk(b"IEND", b"")
ZEROS = zlib.compress(bytes(64 << 20), 9)
PLAIN_PNG = encoded(gradient(32, 32))
PLAIN_JPEG = encoded(gradient(32, 32), "JPEG")


def laden_png(kind: bytes, content: bytes, times: int = 1) -> bytes:
    return PLAIN_PNG[:33] + png_chunk(kind, content) * times + PLAIN_PNG[33:]


def webp(side: int, alpha: bool) -> bytes:
    image = Image.new("RGBA" if alpha else "RGB", (side, side), (1, 2, 3))
    return encoded(image, "WebP", lossless=True, method=0)


# what it is, the file, the statuses it may get
UPLOADS: list[tuple[str, bytes, set[int]]] = [
    ("PNG of 10^10 pixels", png_bomb(100_000, 100_000), {413}),
    ("PNG of 25 million pixels", flat_png(5000, 2), {200}),
    ("PNG of 25 million transparent pixels", flat_png(5000, 6), {200}),
    ("WebP above its limit", webp(5000, True), {413}),
    ("WebP of 12 million transparent pixels", webp(3500, True), {200}),
    ("deflate bomb in zTXt", laden_png(b"zTXt", b"k\0\0" + ZEROS, 20), {200}),
    ("deflate bomb in iTXt", laden_png(b"iTXt", b"k\0\1\0\0\0" + ZEROS, 20), {200}),
    ("deflate bomb as a profile", laden_png(b"iCCP", b"k\0\0" + ZEROS, 20), {200}),
    ("deflate bomb as pixels", png_head(32, 2) + png_chunk(b"IDAT", ZEROS) + IEND, {200, 422}),
    ("huge profile", laden_png(b"iCCP", b"k\0\0" + bytes(8 << 20)), {200}),
    ("EXIF bomb in a PNG", laden_png(b"eXIf", exif_bomb(50_000, 4 << 20)[6:]), {200}),
    ("EXIF bombs in a JPEG", jpeg_with(PLAIN_JPEG, *[(0xE1, exif_bomb(5000, 65_000))] * 9), {200}),
    ("PNG of countless chunks", laden_png(b"tEXt", b"", 70_000), {422}),
    ("JPEG of as many scans as allowed", many_scans(5000, MAX_JPEG_SCANS), {200}),
    ("JPEG of more", many_scans(5000, 60), {422}),
    ("JPEG of 10^9 pixels", PLAIN_JPEG.replace(b"\0\x20\0\x20", b"\xff\xff\xff\xff"), {413}),
    ("BMP in run lengths", bmp_run_lengths(4000), {415}),
    ("PPM as text", b"P3 2000 1200 255" + b" 1" * 7_200_000, {413}),
    ("PPM as allowed text", b"P3 800 800 255" + b" 1" * 1_920_000, {200}),
    ("PBM of comments", b"P1 9 9" + b"\n#" * 2_000_000, {422}),
    ("PGM of 10^10 pixels", b"P5 100000 100000 255\n", {413}),
    ("TIFF", encoded(gradient(32, 32), "TIFF"), {415}),
    ("TIFF that ends as a PNG", b"II*\0" + bytes(4) + PLAIN_PNG, {415}),
    ("PNG that ends as a PDF and a ZIP", PLAIN_PNG + b"%PDF-1.7\nPK\x03\x04", {200}),
    ("JPEG that ends as a script", PLAIN_JPEG + b"<script>alert(1)</script>", {200}),
    ("PDF that holds a JPEG", b"%PDF-1.7\n" + PLAIN_JPEG, {415}),
    ("EPS", b"%!PS-Adobe-3.0 EPSF-3.0\n(%pipe%id) (w) file", {415}),
    ("EPS with a binary header", b"\xc5\xd0\xd3\xc6" + bytes(99), {415}),
    ("SVG with an entity", b'<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY a "b">]><svg/>', {415}),
    ("ICO that holds a PNG", b"\0\0\1\0\1\0" + bytes(16) + PLAIN_PNG, {415}),
    ("ZIP", b"PK\x03\x04" + bytes(99), {422}),
    ("HTML", b"<html><script>alert(1)</script>", {422}),
]


@pytest.mark.parametrize(
    ("content", "statuses"), [u[1:] for u in UPLOADS], ids=[u[0] for u in UPLOADS]
)
def test_no_upload_costs_more_than_an_image_may(
    running: Server, content: bytes, statuses: set[int]
) -> None:
    assert len(content) <= 16 << 20
    forget_peak(running)
    before_mib, before_s = peak_mib(running.process), cpu_s(running)
    for path in ("/classify", "/purify"):
        answer = running.client.post(path, content=content, headers={"Content-Type": "image/png"})
        assert answer.status_code in statuses, answer.text
    assert peak_mib(running.process) - before_mib < GROWTH_MIB
    assert cpu_s(running) - before_s < 2 * CPU_S


def test_all_of_them_again_and_again_leave_memory_flat(models_dir: Path) -> None:
    with server(models_dir, default_model="tiny") as own:
        started, after_round = peak_mib(own.process), []
        for _ in range(3):
            for _, content, statuses in UPLOADS:
                image = {"Content-Type": "image/png"}
                answer = own.client.post("/classify", content=content, headers=image)
                assert answer.status_code in statuses
            after_round.append(resident_mib(own.process))
        # What one image may take, and what the allocator keeps of the one before.
        assert peak_mib(own.process) - started < 1.5 * GROWTH_MIB
        assert after_round[2] - after_round[0] < 32


def test_what_large_images_needed_is_given_back(running: Server) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3000, 4000, 3), np.uint8)
    body, headers = multipart(("file", encoded(Image.fromarray(pixels), "JPEG", quality=20)))
    before = resident_mib(running.process)
    with ThreadPoolExecutor(16) as threads:
        for answer in threads.map(
            lambda _: running.client.post("/classify", content=body, headers=headers), range(48)
        ):
            assert answer.status_code == 200
    deadline = time.monotonic() + 30
    while resident_mib(running.process) > before + 16:
        assert time.monotonic() < deadline
        time.sleep(0.5)


def test_crowds_of_parts_and_huge_part_headers_are_refused(running: Server) -> None:
    forget_peak(running)
    before = peak_mib(running.process)
    for name in ("file", "other"):
        body, headers = multipart(*[(name, b"x")] * 10_000)
        answer = running.client.post("/classify", content=body, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (413, "too_many_images")
    form = {"Content-Type": "multipart/form-data; boundary=b"}
    for head in (
        b"X: " + b"y" * (8 << 20),
        b"X" * (8 << 20) + b": y",
        b'Content-Disposition: form-data; name="' + b"n" * (8 << 20) + b'"',
        b"X: y\r\n" * (1 << 20),
    ):
        body = b"--b\r\n" + head + b"\r\n\r\nx\r\n--b--\r\n"
        answer = running.client.post("/classify", content=body, headers=form)
        assert answer.status_code in {400, 422}, answer.text
        assert len(answer.content) < 1000
    assert peak_mib(running.process) - before < 64


def test_a_chunked_body_without_end_is_cut_off(running: Server) -> None:
    host, port = running.client.base_url.host, running.client.base_url.port
    assert port is not None
    for content_type in (b"image/png", b"multipart/form-data; boundary=b"):
        forget_peak(running)
        before = peak_mib(running.process)
        with socket.create_connection((host, port), TIMEOUT_S) as connection:
            connection.sendall(
                b"POST /classify HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
                b"Content-Type: " + content_type + b"\r\n\r\n"
            )
            if content_type.startswith(b"multi"):
                part = b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\n'
                connection.sendall(b"%x\r\n%s\r\n" % (len(part), part))
            chunk = b"%x\r\n" % (1 << 20) + bytes(1 << 20) + b"\r\n"
            for _ in range(20):  # the limit is 16 MiB
                connection.sendall(chunk)
            with connection.makefile("rb") as answer:
                assert answer.readline().startswith(b"HTTP/1.1 413 ")
        assert peak_mib(running.process) - before < 96


NAMES = [
    "../tiny",
    "..%2f..%2fetc%2fpasswd",
    "/etc/passwd",
    "tiny%00",
    "tiny%0d%0aX-Evil:%201",
    "tiny@1%0aX-Evil:1",
    "tiny@%d9%a1",
    "tïny",
    "%ff%fe",
    "%F0%9F%92%A9",
    "%e2%80%ae",
    "tiny" * 20,
]


@pytest.mark.parametrize("name", NAMES)
def test_no_name_of_a_model_leaves_its_place(running: Server, name: str) -> None:
    answers = [
        running.client.post(f"/{route}?model={name}", content=pgm(102), headers=PGM_TYPE)
        for route in ("classify", "purify")
    ]
    answers.append(running.client.get(f"/models/{name}"))
    for answer in answers:
        assert answer.status_code in {404, 422}, answer.text
        assert "x-evil" not in answer.headers
        assert len(answer.content) < 1000
        assert answer.json()["code"] in {"unknown_model", "not_found", "invalid_parameter"}


@pytest.mark.parametrize(
    "path",
    [
        "/../../etc/passwd",
        "/models/../../etc/passwd",
        "/models/%2e%2e/%2e%2e/etc/passwd",
        "/models//tiny",
        "//evil.example/models",
        "/models/tiny/../../app/main.py",
        "/metrics%00",
        "/docs/..%5c..%5cwindows",
    ],
)
def test_no_path_leaves_the_routes(running: Server, path: str) -> None:
    host, port = running.client.base_url.host, running.client.base_url.port
    assert port is not None
    with socket.create_connection((host, port), TIMEOUT_S) as connection:
        # Bare, because a client would tidy the path up.
        head = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode())
        with connection.makefile("rb") as answer:
            said = answer.read()
    assert said.startswith((b"HTTP/1.1 404 ", b"HTTP/1.1 400 "))
    assert b"root:" not in said and b"location:" not in said.lower()


IDS = [
    b"a\tb",
    b"a\x1b[31mred",
    b"a\x80\xff",
    b'"},{"level":"error","message":"forged',
    b"x" * 60_000,
    "ünïcode\u202e".encode(),
    b"<script>",
    b"${jndi:ldap://x}",
]


def test_no_header_forges_a_header_or_a_line_of_the_log(models_dir: Path) -> None:
    with server(models_dir, default_model="tiny", shutdown_delay_s=0) as own:
        host, port = own.client.base_url.host, own.client.base_url.port
        assert port is not None
        for value in IDS:
            with socket.create_connection((host, port), TIMEOUT_S) as connection:
                connection.sendall(
                    b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                    b"X-Request-ID: " + value + b"\r\n\r\n"
                )
                with connection.makefile("rb") as answer:
                    said = answer.read()
            assert value not in said
            assert said.startswith(b"HTTP/1.1 %d " % (400 if b"\x1b" in value else 200))
        # Two lines where one header was meant: the id is only the first.
        with socket.create_connection((host, port), TIMEOUT_S) as connection:
            connection.sendall(
                b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                b"X-Request-ID: mine\r\nX-Evil: 1\r\n\r\n"
            )
            with connection.makefile("rb") as answer:
                said = answer.read()
        assert b"x-request-id: mine\r\n" in said and b"evil" not in said.lower()
        own.client.get("/nothing%0a%7b%22level%22:%22error%22%7d")
        assert own.client.request("X" * 500, "/classify").status_code == 400
        own.process.send_signal(signal.SIGTERM)
        lines = own.end()  # every line is one JSON object
    answered = [line for line in lines if line["message"] == "request"]
    # All but two that were no HTTP; the first is the question whether the server is ready.
    assert len(answered) == 1 + (len(IDS) - 1) + 2
    text = json.dumps(lines)
    assert "forged" not in text and "jndi" not in text and "X" * 20 not in text
    assert "error" not in {line["level"] for line in lines}


def test_what_is_no_http_is_counted(running: Server) -> None:
    series = 'limbeck_rejected_total{reason="malformed_request"}'
    before = metric(running.client, series)
    with connected(running.client) as connection:
        connection.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 400 ")
    assert metric(running.client, series) == before + 1


def test_nothing_tells_which_software_answers(running: Server) -> None:
    answers = [
        running.client.get("/health/live"),
        running.client.get("/none"),
        running.client.post("/classify", content=b"x", headers=PGM_TYPE),
        running.client.request("BREW", "/classify"),
    ]
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff"
        for name, value in answer.headers.items():
            assert name not in {"server", "via", "x-powered-by"}
            assert not any(word in value.lower() for word in ("uvicorn", "python", "starlette"))


def test_administration_has_a_door_of_its_own(models_dir: Path) -> None:
    with server(models_dir, default_model="tiny", admin_port=0) as own:
        address = served_address(own.log)
        with httpx.Client(base_url=address, timeout=TIMEOUT_S, trust_env=False) as admin:
            assert admin.base_url.port != own.client.base_url.port
            assert "limbeck_requests_total" in admin.get("/metrics").text
            for path in ("/health/live", "/health/ready"):
                assert admin.get(path).status_code == own.client.get(path).status_code == 200
            assert admin.post("/classify", content=pgm(1), headers=PGM_TYPE).status_code == 404
            assert admin.get("/openapi.json").status_code == 404
            tricks = {
                "Host": address.removeprefix("http://"),
                "X-Forwarded-Port": str(admin.base_url.port),
                "X-Forwarded-Host": address,
                "Forwarded": f"for=127.0.0.1;host={address}",
            }
            for path in ("/metrics", "/metrics/", "/v2/repository/index"):
                for headers in ({}, tricks):
                    answer = own.client.get(path, headers=headers)
                    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
            assert own.client.post("/classify", content=pgm(1), headers=PGM_TYPE).is_success


def test_keys_and_their_rate_hold_in_the_real_process(models_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("# mounted\nfrom-file\n")
    keys = {"api_keys": "from-env", "api_keys_file": tmp_path / "keys", "rate_limit": "3/hour"}
    with server(models_dir, default_model="tiny", **keys) as own:
        for key in ("from-env", "from-file"):
            statuses = [
                own.client.get("/models", headers={"X-API-Key": key}).status_code for _ in range(4)
            ]
            assert statuses == [200, 200, 200, 429]
        statuses = [
            own.client.get("/models", headers={"X-API-Key": f"guess {n}"}).status_code
            for n in range(4)
        ]
        assert statuses == [401, 401, 401, 429]
        # Refused before the body: the answer comes although none was sent.
        host, port = own.client.base_url.host, own.client.base_url.port
        assert port is not None
        with socket.create_connection((host, port), TIMEOUT_S) as connection:
            connection.sendall(
                b"POST /classify HTTP/1.1\r\nHost: x\r\nX-API-Key: from-env\r\n"
                b"Content-Type: image/png\r\nContent-Length: 1000000\r\n\r\n"
            )
            with connection.makefile("rb") as answer:
                assert answer.readline().startswith(b"HTTP/1.1 429 ")
        assert own.client.get("/health/ready").status_code == 200


@pytest.mark.parametrize("content", [None, "", "# none\n", "two words\n"])
def test_a_file_of_keys_that_holds_none_stops_the_start(
    models_dir: Path, tmp_path: Path, content: str | None
) -> None:
    if content is not None:
        (tmp_path / "keys").write_text(content)
    failed = refusal(models_dir, api_keys_file=tmp_path / "keys")
    assert failed.returncode == 1
    assert f"LIMBECK_API_KEYS_FILE='{tmp_path / 'keys'}': " in failed.stderr
    assert "Traceback" not in failed.stderr and "two words" not in failed.stderr


def test_an_unsigned_bundle_stops_the_start(tmp_path: Path) -> None:
    pytest.importorskip("cryptography", reason="needs the extra signing")
    from cryptography.hazmat.primitives.asymmetric import ec

    from tests.app.test_signature import sign, write_keys

    write_keys(tmp_path, "key", ec.generate_private_key(ec.SECP256R1()))
    folder = make_bundle(tmp_path / "models")
    failed = refusal(tmp_path / "models", bundle_public_key=tmp_path / "key.pub")
    assert failed.returncode == 1
    assert f"{folder / 'model.sig'}: is missing" in failed.stderr
    sign(folder, tmp_path / "key.pem")
    with server(tmp_path / "models", bundle_public_key=tmp_path / "key.pub") as own:
        answer = own.client.post("/classify", content=pgm(102), headers=PGM_TYPE)
        assert answer.json()["label"] == "grey"


def test_nothing_in_the_service_can_read_a_pickle() -> None:
    for path in (ROOT / "app").rglob("*.py"):
        text = path.read_text()
        for word in (
            "import pickle",
            "import shelve",
            "import marshal",
            "allow_pickle=True",
            "np.load",
        ):
            assert word not in text, path
