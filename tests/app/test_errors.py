from app import errors
from app.errors import CorruptImage, QueueFull, ServiceError

TREE = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, ServiceError)]


def test_every_failure_has_a_code_of_its_own() -> None:
    codes = [failure.code for failure in TREE]
    assert len(codes) > 20
    assert len(set(codes)) == len(codes)


def test_every_status_is_an_error() -> None:
    assert {failure for failure in TREE if not 400 <= failure.status < 600} == set()


def test_a_problem_document_says_what_when_and_where() -> None:
    problem = CorruptImage("It ends early.", extra={"file_index": 2}).problem()
    assert problem == {
        "type": "about:blank",
        "title": "The image cannot be decoded",
        "status": 422,
        "code": "corrupt_image",
        "detail": "It ends early.",
        "file_index": 2,
    }


def test_headers_are_kept_apart_from_the_document() -> None:
    error = QueueFull(headers={"Retry-After": "1"})
    assert error.headers == {"Retry-After": "1"}
    assert "headers" not in error.problem()
