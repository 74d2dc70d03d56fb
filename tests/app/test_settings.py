from pathlib import Path

import pytest
from pydantic import SecretStr

from app.settings import Settings, SettingsError, cores, load_settings


def test_the_environment_is_read() -> None:
    settings = load_settings(
        {
            "LIMBECK_MODELS_DIR": "/models",
            "LIMBECK_MAX_BATCH_SIZE": "8",
            "LIMBECK_CORS_ORIGINS": "https://a.example, https://b.example,",
            "PATH": "/bin",
        }
    )
    assert settings.models_dir == Path("/models")
    assert settings.max_batch_size == 8
    assert settings.cors_origins == ("https://a.example", "https://b.example")


def test_what_is_not_set_has_its_default() -> None:
    assert load_settings({}) == Settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [("HOST", ""), ("ADMIN_HOST", ""), ("DRAIN_SECONDS", "inf"), ("KEEP_ALIVE_S", "nan")],
)
def test_a_value_that_would_mean_anything_is_refused(name: str, value: str) -> None:
    # An empty address is all of them to the system.
    with pytest.raises(SettingsError, match=f"LIMBECK_{name}="):
        load_settings({f"LIMBECK_{name}": value})


def test_a_misspelt_name_fails_with_a_suggestion() -> None:
    with pytest.raises(
        SettingsError, match="LIMBECK_DEVISE is no setting; did you mean LIMBECK_DEVICE"
    ):
        load_settings({"LIMBECK_DEVISE": "cpu"})


def test_a_setting_that_does_nothing_here_is_not_accepted() -> None:
    # Somebody who sets a key must not believe that the service asks for it.
    with pytest.raises(SettingsError, match="LIMBECK_TLS_KEY"):
        load_settings({"LIMBECK_TLS_KEY": "secret"})


def test_the_admin_key_is_read_and_kept_to_itself() -> None:
    settings = load_settings({"LIMBECK_ADMIN_KEY": "sesame", "LIMBECK_API_KEYS": "other"})
    assert settings.admin_key is not None
    assert settings.admin_key.get_secret_value() == "sesame"
    assert "sesame" not in repr(settings)


@pytest.mark.parametrize("key", ["", "open sesame", "schlüssel"])
def test_an_admin_key_that_could_not_be_asked_for_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(SettingsError, match=r"LIMBECK_ADMIN_KEY=\.\.\.: a key") as refused:
        load_settings({"LIMBECK_ADMIN_KEY": key})
    assert "sesame" not in str(refused.value)


def test_an_api_key_cannot_be_the_admin_key() -> None:
    with pytest.raises(SettingsError, match="LIMBECK_ADMIN_KEY must not") as refused:
        load_settings({"LIMBECK_ADMIN_KEY": "sesame", "LIMBECK_API_KEYS": "other,sesame"})
    assert "sesame" not in str(refused.value)


def test_the_admin_key_comes_from_a_file_too(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("sesame\n")
    from_file = {"LIMBECK_ADMIN_KEY_FILE": str(file)}
    assert load_settings(from_file).known_admin_key() == SecretStr("sesame")
    for others in ({"LIMBECK_ADMIN_KEY": "other"}, {"LIMBECK_API_KEYS": "sesame"}):
        with pytest.raises(SettingsError, match="LIMBECK_ADMIN_KEY") as refused:
            load_settings({**from_file, **others})
        assert "sesame" not in str(refused.value)
    file.write_text("sesame\nother\n")
    with pytest.raises(SettingsError, match="one admin key"):
        load_settings(from_file)


def test_api_keys_are_read_and_kept_to_itself() -> None:
    settings = load_settings({"LIMBECK_API_KEYS": "first-key, second,key"})
    assert [key.get_secret_value() for key in settings.api_keys] == ["first-key", "second", "key"]
    assert "first" not in repr(settings)


@pytest.mark.parametrize("keys", ["", ",", "good,", "good,two words", "schlüssel"])
def test_keys_that_could_not_be_asked_for_are_refused_and_not_shown(keys: str) -> None:
    with pytest.raises(SettingsError, match=r"LIMBECK_API_KEYS=\.\.\.: every key") as refused:
        load_settings({"LIMBECK_API_KEYS": keys})
    assert "good" not in str(refused.value)


def test_keys_of_the_environment_and_of_the_file_are_known(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# rotated weekly\nfrom-file\n")
    assert load_settings({}).known_keys() == ()
    both = {"LIMBECK_API_KEYS": "from-env", "LIMBECK_API_KEYS_FILE": str(file)}
    known = [key.get_secret_value() for key in load_settings(both).known_keys()]
    assert known == ["from-env", "from-file"]
    file.write_text("# none left\n")
    with pytest.raises(SettingsError, match=r"^LIMBECK_API_KEYS_FILE='.*': the file holds no key$"):
        load_settings({"LIMBECK_API_KEYS_FILE": str(file)})


def test_the_admin_port_is_another_one() -> None:
    assert load_settings({"LIMBECK_ADMIN_PORT": "9000"}).admin_port == 9000
    assert load_settings({"LIMBECK_ADMIN_PORT": "0", "LIMBECK_PORT": "0"}).admin_port == 0
    with pytest.raises(SettingsError, match="LIMBECK_ADMIN_PORT must not be LIMBECK_PORT"):
        load_settings({"LIMBECK_ADMIN_PORT": "8000"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LIMBECK_DEVICE", "gpu"),
        ("LIMBECK_PORT", "70000"),
        ("LIMBECK_MAX_BATCH_SIZE", "many"),
        ("LIMBECK_REQUEST_TIMEOUT_S", "0"),
        ("LIMBECK_WORKERS", "-1"),
        ("LIMBECK_HANG_SECONDS", "0"),
        ("LIMBECK_ADMIN_PORT", "70000"),
        ("LIMBECK_RATE_LIMIT", "often"),
    ],
)
def test_an_impossible_value_names_the_variable_and_the_value(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"{name}='{value}'"):
        load_settings({name: value})


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(SettingsError, match=r"LIMBECK_X .*LIMBECK_PORT"):
        load_settings({"LIMBECK_X": "1", "LIMBECK_PORT": "x"})


def test_a_request_that_could_never_be_queued_is_refused() -> None:
    with pytest.raises(SettingsError, match="LIMBECK_MAX_QUEUE_SIZE"):
        load_settings({"LIMBECK_MAX_QUEUE_SIZE": "4", "LIMBECK_MAX_REQUEST_IMAGES": "5"})


@pytest.mark.parametrize("name", ["LIMBECK_MAX_IMAGE_BYTES", "LIMBECK_MAX_REQUEST_BYTES"])
def test_a_request_that_could_never_be_held_is_refused(name: str) -> None:
    sizes = {"LIMBECK_MAX_IMAGE_BYTES": "1000", "LIMBECK_MAX_REQUEST_BYTES": "1000"}
    assert load_settings(sizes | {"LIMBECK_MAX_QUEUE_BYTES": "1000"})
    with pytest.raises(SettingsError, match=name):
        load_settings(sizes | {name: "1001", "LIMBECK_MAX_QUEUE_BYTES": "1000"})


def test_the_links_that_kubernetes_sets_are_no_settings() -> None:
    links = {
        "LIMBECK_SERVICE_HOST": "10.0.0.1",
        "LIMBECK_SERVICE_PORT_HTTP": "8000",
        "LIMBECK_PORT_8000_TCP_ADDR": "10.0.0.1",
    }
    assert load_settings(links) == Settings()
    with pytest.raises(SettingsError, match="enableServiceLinks"):
        load_settings({"LIMBECK_PORT": "tcp://10.0.0.1:8000"})


def test_no_number_of_workers_means_one_per_core() -> None:
    assert load_settings({"LIMBECK_WORKERS": "0"}).processes == cores() >= 1
    assert load_settings({}).processes == 1


def test_an_inference_hangs_after_four_timeouts_but_no_sooner_than_a_minute() -> None:
    assert load_settings({"LIMBECK_REQUEST_TIMEOUT_S": "30"}).hang_s == 120
    assert load_settings({"LIMBECK_REQUEST_TIMEOUT_S": "1"}).hang_s == 60
    assert load_settings({"LIMBECK_HANG_SECONDS": "5"}).hang_s == 5
