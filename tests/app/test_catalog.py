from pathlib import Path

import pytest

from app.bundle import CARD_FILE, MANIFEST_FILE, BundleError
from app.catalog import Catalog, LoadOptions, load_catalog, load_model
from app.errors import UnknownModel
from app.folders import find_bundles
from tests.bundles import Design, make_bundle, replace_file, rewrite_manifest

OPTIONS = LoadOptions("cpu", 1, 2)


@pytest.fixture(scope="module")
def catalog(models_dir: Path) -> Catalog:
    return load_catalog(models_dir, "tiny", OPTIONS)


@pytest.mark.parametrize(
    ("selector", "key"),
    [
        (None, "tiny@2"),
        ("", "tiny@2"),
        ("tiny", "tiny@2"),
        ("tiny@1", "tiny@1"),
        ("brittle", "brittle@1"),
    ],
)
def test_a_name_may_carry_a_version(catalog: Catalog, selector: str | None, key: str) -> None:
    assert catalog.find(selector).key == key


@pytest.mark.parametrize(
    "selector",
    ["none", "tiny@3", "tiny@", "tiny@x", "tiny@-1", "tiny@" + "9" * 5000, "../tiny", "@1"],
)
def test_what_is_not_there_is_unknown(catalog: Catalog, selector: str) -> None:
    with pytest.raises(UnknownModel) as refused:
        catalog.find(selector)
    assert len(refused.value.detail) < 200


def test_without_a_default_the_first_name_stands(models_dir: Path) -> None:
    assert load_catalog(models_dir, None, OPTIONS).default == "brittle"


def test_a_changed_catalog_is_another_one_with_the_same_default(catalog: Catalog) -> None:
    without = catalog.changed("tiny", [])
    assert (list(without.bundles), without.default) == (["brittle"], "tiny")
    for selector in (None, "tiny", "tiny@1"):
        with pytest.raises(UnknownModel):
            without.find(selector)
    back = without.changed("tiny", [catalog.find("tiny@1")])
    assert back.find(None).key == "tiny@1"
    assert without.changed("brittle", []).models == []
    assert catalog.find(None).key == "tiny@2"


def test_the_card_is_loaded_where_there_is_one(catalog: Catalog) -> None:
    assert catalog.find("tiny@1").card == {"rows": []}
    assert catalog.find("tiny@2").card is None


def test_versions_are_numbers_and_hidden_folders_are_left_alone(tmp_path: Path) -> None:
    for name in ("a/10", "a/9", "a/.9-being-written", "a/latest", ".b/1", "b/1"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "README.md").write_text("")
    found = [str(folder.relative_to(tmp_path)) for folder in find_bundles(tmp_path)]
    assert found == ["a/9", "a/10", "b/1"]


def test_a_folder_that_is_missing_or_empty_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="LIMBECK_MODELS_DIR"):
        load_catalog(tmp_path / "nowhere", None, OPTIONS)
    with pytest.raises(BundleError, match="holds no bundle"):
        load_catalog(tmp_path, None, OPTIONS)


def test_a_default_that_is_not_there_is_refused(models_dir: Path) -> None:
    with pytest.raises(BundleError, match=r"LIMBECK_DEFAULT_MODEL.*brittle, tiny"):
        load_catalog(models_dir, "absent", OPTIONS)


def test_a_bundle_in_the_wrong_folder_is_refused(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path)
    rewrite_manifest(folder, version=7)
    with pytest.raises(BundleError, match="tiny version 7"):
        load_model(folder, OPTIONS)


@pytest.mark.parametrize("missing", [MANIFEST_FILE, "purifier.onnx", "classifier.onnx"])
def test_a_missing_file_is_named(tmp_path: Path, missing: str) -> None:
    folder = make_bundle(tmp_path)
    (folder / missing).unlink()
    with pytest.raises(BundleError, match=missing):
        load_model(folder, OPTIONS)


def test_a_version_that_is_not_whole_is_left_out_where_another_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_bundle(tmp_path)
    (tmp_path / "tiny" / "2").mkdir()
    catalog = load_catalog(tmp_path, None, OPTIONS)
    assert catalog.find(None).key == "tiny@1"
    (failure,) = catalog.failures
    assert (failure.name, failure.version) == ("tiny", "2")
    assert failure.reason.startswith("tiny/2/bundle.json: cannot be read")
    assert "refused tiny@2" in caplog.text


def test_a_bundle_without_a_whole_version_is_refused(tmp_path: Path) -> None:
    make_bundle(tmp_path)
    (tmp_path / "other" / "1").mkdir(parents=True)
    with pytest.raises(BundleError, match=r"other/1/bundle\.json: cannot be read"):
        load_catalog(tmp_path, "tiny", OPTIONS)


def test_only_the_versions_that_are_named_are_loaded(tmp_path: Path) -> None:
    make_bundle(tmp_path)
    make_bundle(tmp_path, version=2)
    assert load_catalog(tmp_path, None, OPTIONS, ["tiny/1"]).find(None).key == "tiny@1"
    with pytest.raises(BundleError, match="holds no bundle"):
        load_catalog(tmp_path, None, OPTIONS, [])


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"{", "is not JSON"), (b"[" * 200_000, "is not JSON"), (b"[]", "holds no JSON object")],
    ids=["cut off", "endless", "list"],
)
def test_a_card_that_is_none_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    folder = make_bundle(tmp_path, design=Design(card={}))
    replace_file(folder, CARD_FILE, content)
    with pytest.raises(BundleError, match=rf"card\.json: {reason}"):
        load_model(folder, OPTIONS)


def test_a_card_that_was_changed_is_refused(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path, design=Design(card={}))
    (folder / CARD_FILE).write_bytes(b"{ }")
    with pytest.raises(BundleError, match=r"card\.json: has SHA-256"):
        load_model(folder, OPTIONS)
