"""That requests past the framework's routing are answered as the framework would answer them."""

import httpx

from tests.images import PGM_TYPE, pgm


def classify(client: httpx.Client, query: str) -> httpx.Response:
    return client.post(f"/classify?{query}", content=pgm(102), headers=PGM_TYPE)


def test_of_a_repeated_parameter_the_last_counts(client: httpx.Client) -> None:
    assert classify(client, "purify=true&purify=false").json()["purified"] is False
    assert classify(client, "purify=false&purify=true").json()["purified"] is True


def test_the_query_is_decoded(client: httpx.Client) -> None:
    assert classify(client, "model=%74iny&top%5Fk=1").json()["model"] == "tiny"


def test_long_queries_are_read_as_well(client: httpx.Client) -> None:
    long = "&".join(["purify=true"] * 50)
    assert classify(client, long).json()["purified"] is True
    assert classify(client, f"{long}&purfy=true").status_code == 422


def test_everything_that_is_wrong_is_told_at_once(client: httpx.Client) -> None:
    headers = {**PGM_TYPE, "X-Request-Timeout-Ms": "0"}
    answer = client.post("/classify?top_k=0&purfy=1", content=pgm(102), headers=headers)
    wrong = [error["parameter"] for error in answer.json()["errors"]]
    assert sorted(wrong) == ["X-Request-Timeout-Ms", "purfy", "top_k"]


def test_other_methods_and_paths_are_the_frameworks(client: httpx.Client) -> None:
    answer = client.get("/classify")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert client.post("/classify/", content=pgm(102), headers=PGM_TYPE).status_code == 404
