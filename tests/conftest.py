"""Fixtures that several test modules share."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import settings as hypothesis_settings

from app.main import create_app
from app.settings import Settings
from tests.bundles import Design, make_bundle
from tests.serving import running

# How long an example takes says more about the machine than about the code.
hypothesis_settings.register_profile("limbeck", deadline=None)
hypothesis_settings.load_profile("limbeck")


@pytest.fixture(scope="session")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bundles that all tests may read: two versions of `tiny`, and `brittle`."""
    folder = tmp_path_factory.mktemp("models")
    make_bundle(folder, "tiny", 1, Design(card={"rows": []}))
    make_bundle(folder, "tiny", 2)
    make_bundle(folder, "brittle", 1, Design(poison=True, threshold_bits=None))
    return folder


@pytest.fixture(scope="session")
def settings(models_dir: Path) -> Settings:
    """Settings that start fast, with limits a test can reach."""
    return Settings(
        models_dir=models_dir,
        default_model="tiny",
        device="cpu",
        inference_threads=1,
        max_batch_size=4,
        max_queue_size=8,
        max_request_images=4,
        max_image_bytes=20_000,
        max_request_bytes=50_000,
        max_image_pixels=1_000_000,
    )


@pytest.fixture(scope="session")
def client(settings: Settings) -> Iterator[httpx.Client]:
    """The app behind a real server, shared by the tests that leave nothing behind."""
    with running(create_app(settings)) as client:
        yield client
