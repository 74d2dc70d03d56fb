import re
from pathlib import Path

import httpx
import numpy as np
import pytest
from pydantic import SecretStr

from app.main import create_app
from app.settings import Settings
from tests.bundles import Design, make_bundle
from tests.serving import running
from tests.training.brightness import COUNT, write_brightness_dataset
from tests.training.stub_service import Reply, stub
from training.address import KEY_VARIABLE
from training.cli import main
from training.spoils import read_spoils


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "brightness"
    write_brightness_dataset(folder)
    return folder


@pytest.fixture
def url(client: httpx.Client) -> str:
    return str(client.base_url)


def test_an_attack_is_reported_kept_and_agrees_with_its_recount(
    url: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "found" / "images.npy"
    options = ["--no-purify", "--model", "tiny", "--epsilon", "0.4", "--queries", "20"]
    assert main(["attack", "--url", url, "--data", str(data), *options, "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{url}, tiny@2, not purified; {COUNT} random test images, seed 0"
    assert "L-inf 0.4 (102/255), in 8-bit PNG as they are sent; at most 20 queries" in lines[1]
    assert f"{COUNT * 20} in all" in lines[1]
    assert "clean accuracy: 100.0% (10 of 10; 95 % Wilson interval 72.2% to 100.0%)" in lines
    spoils = read_spoils(out)
    robust, broken = int(spoils.robust.sum()), spoils.queries[~spoils.robust]
    assert len(broken) >= 5
    assert any(line.startswith(f"robust accuracy: {10 * robust}.0% ({robust} of") for line in lines)
    assert f"({len(broken)} did): mean {broken.mean():.1f}, " in "\n".join(lines)
    assert any(line.startswith(f"{spoils.queries.sum()} queries in ") for line in lines)
    assert np.abs(spoils.sent.astype(int) - spoils.clean).max() == 102

    again = ["recount", str(out), "--url", url, "--model", "tiny"]
    assert main([*again, "--no-purify"]) == 0
    shown = capsys.readouterr().out
    assert "changed by at most L-inf 0.4 and L2" in shown
    assert f"robust accuracy: {10 * robust}.0%" in shown
    assert shown.endswith("agrees with the attack, image by image\n")
    # Purified they are other images: 80 of 255 is dark as it is.
    assert main([*again, "--purify"]) == 1
    assert f"the attack left {robust} of {COUNT}; the answers to images" in capsys.readouterr().err


def test_a_key_of_the_environment_opens_the_service(
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_bundle(tmp_path, "tiny", 1, Design())
    keys = (SecretStr("the-key"),)
    settings = Settings(models_dir=tmp_path, device="cpu", api_keys=keys)
    with running(create_app(settings)) as client:
        command = ["attack", "--url", str(client.base_url), "--data", str(data), "--queries", "2"]
        command += ["--epsilon", "0.3"]
        monkeypatch.delenv(KEY_VARIABLE, raising=False)
        assert main(command) == 1
        assert "/models answers 401 unauthorized" in capsys.readouterr().err
        monkeypatch.setenv(KEY_VARIABLE, "the-key")
        assert main(command) == 0
    assert "the-key" not in capsys.readouterr().out


def test_the_attack_goes_as_far_as_the_bundle_s_card(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_bundle(tmp_path, "tiny", 1, Design(card={"norm": "linf", "epsilon": 0.2}))
    with running(create_app(Settings(models_dir=tmp_path, device="cpu"))) as client:
        command = ["attack", "--url", str(client.base_url), "--data", str(data), "--queries", "2"]
        assert main(command) == 0
        assert "L-inf 0.2 (51/255), in 8-bit" in capsys.readouterr().out
        assert main([*command, "--norm", "l2"]) == 1
        assert "tiny@1 has no robustness card for L2" in capsys.readouterr().err


def test_a_rate_limit_that_nobody_can_wait_for_is_told(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_bundle(tmp_path, "tiny", 1, Design())
    settings = Settings(models_dir=tmp_path, device="cpu", rate_limit="1/year")
    with running(create_app(settings)) as client:
        command = ["attack", "--url", str(client.base_url), "--data", str(data), "--queries", "2"]
        assert main([*command, "--epsilon", "0.3"]) == 1
    errors = capsys.readouterr().err
    assert "/classify answers 429 rate_limited: Allowed are 1 per 1 year.; it asks to" in errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--url", "http://example.com"], "example.com is not this machine; --yes says"),
        (["--url", "ftp://localhost"], "--url wants http://host:port"),
        (["--epsilon", "0.001"], "epsilon 0.001 cannot be used"),
        (["--queries", "1"], "--queries must be at least 2"),
        (["--timeout", "0"], "--timeout and --minutes must be more than 0"),
        (["--model", "huge"], "has no model 'huge'"),
        (["--model", "tiny@2"], "tiny@2 has no robustness card for L-inf: how far may .*--epsilon"),
        (["--epsilon", "0.3", "--data", "nowhere"], "nowhere: cannot be read"),
        (["--out", __file__], "is there already; it was left as it is"),
        (["--out", f"{__file__}/images.npy"], "cannot be written to: Not a directory"),
    ],
)
def test_a_mistake_is_one_line(
    url: str,
    data: Path,
    options: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["attack", "--url", url, "--data", str(data), *options]) == 1
    errors = capsys.readouterr().err
    assert errors.startswith("limbeck-train: ") and errors.count("\n") == 1
    assert re.search(message, errors)


def test_a_service_that_is_no_limbeck_is_told_so(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with stub(Reply(404, b"not here")) as service:
        assert main(["attack", "--url", str(service.address), "--data", str(data)]) == 1
    assert "/models answers 404" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"no array", None])
def test_a_file_that_holds_no_attack_is_named(
    content: bytes | None, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "images.npy"
    if content is None:
        np.save(path, np.zeros((3, 4)))
    else:
        path.write_bytes(content)
    assert main(["recount", str(path), "--url", url]) == 1
    assert "images.npy: holds no images of limbeck-train attack" in capsys.readouterr().err
    assert main(["recount", str(tmp_path / "none.npy"), "--url", url]) == 1
    assert "none.npy: cannot be read: No such file" in capsys.readouterr().err
