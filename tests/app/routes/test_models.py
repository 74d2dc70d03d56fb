import httpx

from app.schemas import BundleDetail, Models


def test_everything_loaded_is_listed(client: httpx.Client) -> None:
    models = Models.model_validate_json(client.get("/models").content)
    assert models.default == "tiny"
    brittle, tiny = models.models
    assert (brittle.name, brittle.default, tiny.name, tiny.default) == (
        "brittle",
        False,
        "tiny",
        True,
    )
    assert tiny.served_version == 2
    assert [version.version for version in tiny.versions] == [1, 2]
    assert tiny.versions[0].labels == ["dark", "grey", "bright"]
    assert tiny.versions[0].provider == "CPUExecutionProvider"
    assert set(tiny.versions[0].files) == {"purifier.onnx", "classifier.onnx", "card.json"}
    assert len(tiny.versions[0].sha256) == 64


def test_one_bundle_tells_its_origin_and_its_card(client: httpx.Client) -> None:
    tiny = BundleDetail.model_validate_json(client.get("/models/tiny").content)
    assert [version.card for version in tiny.versions] == [{"rows": []}, None]
    assert tiny.versions[0].provenance["recipe"] == "none"
