import json
import logging

import pytest

from app.logs import JsonFormatter, configure_logs


def line(**arguments: object) -> dict[str, object]:
    record = logging.makeLogRecord({"name": "app", "levelname": "INFO", **arguments})
    text = JsonFormatter().format(record)
    assert "\n" not in text
    document = json.loads(text)
    assert isinstance(document, dict)
    return document


def test_a_record_becomes_one_line() -> None:
    document = line(msg="took %d ms\nor more", args=(7,), fields={"status": 200})
    assert document["message"] == "took 7 ms\nor more"
    assert (document["level"], document["logger"], document["status"]) == ("info", "app", 200)
    assert str(document["time"]).endswith("+00:00")


def test_an_exception_is_told_in_the_same_line() -> None:
    try:
        raise ValueError("why")
    except ValueError as error:
        document = line(msg="failed", exc_info=(type(error), error, error.__traceback__))
    assert "ValueError: why" in str(document["exception"])


def test_every_logger_of_the_process_writes_json(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        configure_logs("warning")
        logging.getLogger("uvicorn.error").warning("hello")
        logging.getLogger("anything").info("not this")
        logging.getLogger("python_multipart.multipart").warning("nor what a form is told anyway")
    finally:
        root.handlers[:], root.level = handlers, level
    (written,) = capsys.readouterr().out.splitlines()
    assert json.loads(written)["message"] == "hello"
