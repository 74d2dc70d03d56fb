import io
import json
import logging

import pytest

from app.logs import JsonFormatter, SteadyHandler, configure_logs


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


def test_a_record_with_entries_becomes_a_line_for_each() -> None:
    entries = [(1000.25, {"status": 200}), (1001.5, {"status": 503, "note": "a\nb"})]
    record = logging.makeLogRecord({"name": "app", "msg": "request", "entries": entries})
    first, second = map(json.loads, JsonFormatter().format(record).split("\n"))
    assert (first["time"], first["status"]) == ("1970-01-01T00:16:40.250+00:00", 200)
    assert (second["time"], second["status"]) == ("1970-01-01T00:16:41.500+00:00", 503)
    assert first["message"] == second["message"] == "request"


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


def test_every_line_that_cannot_be_written_is_counted() -> None:
    stream = io.StringIO()
    stream.close()
    handler = SteadyHandler(stream)
    handler.setFormatter(JsonFormatter())
    entries = [(1000.0 + number, {"status": 200}) for number in range(3)]
    handler.emit(logging.makeLogRecord({"name": "app", "msg": "request", "entries": entries}))
    handler.emit(logging.makeLogRecord({"name": "app", "msg": "one\nmore"}))
    assert handler.lost == 4
