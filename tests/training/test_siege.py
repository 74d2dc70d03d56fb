"""The attack against a real server: in these tests its bundle `tiny` takes 4 images a request."""

import json
import math
import re
from collections.abc import Iterator

import httpx
import numpy as np
import pytest
import torch

from tests.training.brightness import COUNT, brightness_images
from tests.training.stub_service import Reply, stub
from training.address import address_of
from training.attacks import Norm
from training.client import Client, Patience, ServiceFailure
from training.oracle import Answer, Oracle
from training.siege import LEVELS, Ball, Outcome, besiege, scores_of


@pytest.fixture
def remote(client: httpx.Client) -> Iterator[Client]:
    """Our client of the server."""
    ours = Client(address_of(str(client.base_url)))
    yield ours
    ours.close()


def classified_images(client: httpx.Client) -> float:
    """How many images the service's own books say that its classifier saw."""
    found = re.search(r'limbeck_batch_size_sum\{model="tiny"\} (\S+)', client.get("/metrics").text)
    return float(found[1]) if found else 0.0


def attacked(
    remote: Client, ball: Ball, queries: int, *, purify: bool = False, seed: int = 0
) -> tuple[Oracle, Outcome]:
    oracle = Oracle.of(remote, "tiny", purify=purify)
    images, labels = brightness_images()
    outcome = besiege(
        oracle, images, labels, ball=ball, queries=queries, seed=seed, report=lambda line: None
    )
    return oracle, outcome


def still_right(oracle: Oracle, outcome: Outcome) -> list[bool]:
    """What the service says of the images as they were sent."""
    answers = [answer for _, part in oracle.ask(outcome.sent) for answer in part]
    return [a.label == label for a, label in zip(answers, outcome.labels, strict=True)]


@pytest.mark.parametrize(
    ("norm", "epsilon", "order", "fallen"),
    # The classifier sees the mean alone, which an L2 attack of a few squares hardly moves.
    [("linf", 0.4, math.inf, COUNT - 2), ("l2", 3.0, 2, 3)],
    ids=["linf", "l2"],
)
def test_an_undefended_classifier_falls_within_the_budget(
    remote: Client, client: httpx.Client, norm: Norm, epsilon: float, order: float, fallen: int
) -> None:
    before = classified_images(client)
    oracle, outcome = attacked(remote, Ball.within(norm, epsilon), queries=40)
    assert classified_images(client) - before == outcome.queries.sum()
    assert outcome.clean_right.all() and outcome.ended_early is None
    assert (~outcome.robust).sum() >= fallen
    assert outcome.queries.max() <= 40 and outcome.queries.min() >= 2
    assert (outcome.queries[outcome.robust] == 40).all()
    moves = (outcome.sent.astype(float) - outcome.clean) / LEVELS
    lengths = np.linalg.norm(moves.reshape(COUNT, -1), order, axis=1)
    assert lengths.max() <= epsilon
    assert lengths[~outcome.robust].min() > 0
    assert still_right(oracle, outcome) == outcome.robust.tolist()
    assert oracle.per_request == 4  # as the service said to the first form
    assert remote.tally.repeated == 0


def test_a_second_attack_is_the_first_one_again(remote: Client) -> None:
    ball = Ball.within("linf", 0.15)
    (_, first), (_, second) = (attacked(remote, ball, 12) for _ in range(2))
    assert np.array_equal(first.sent, second.sent)
    assert np.array_equal(first.queries, second.queries)
    _, other = attacked(remote, ball, 12, seed=1)
    assert not np.array_equal(first.sent, other.sent)


def test_what_cannot_be_broken_costs_the_whole_budget_and_no_more(
    remote: Client, client: httpx.Client
) -> None:
    before = classified_images(client)
    _, outcome = attacked(remote, Ball.within("linf", 2 / LEVELS), queries=7)
    assert outcome.robust.all()
    assert (outcome.queries == 7).all()
    assert classified_images(client) - before == 7 * COUNT


def test_the_purifier_stands_where_it_is_asked_for(remote: Client) -> None:
    # It makes 80 of 255 dark without any attack.
    _, outcome = attacked(remote, Ball.within("linf", 1 / LEVELS), queries=2, purify=True)
    assert not outcome.clean_right[3] and not outcome.robust[3]
    assert outcome.queries[3] == 1
    assert np.array_equal(outcome.sent[3], outcome.clean[3])


def test_models_are_named_or_the_default(remote: Client) -> None:
    assert Oracle.of(remote, None, purify=True).version == 2
    assert Oracle.of(remote, "tiny@1", purify=True).version == 1
    assert str(Oracle.of(remote, "brittle", purify=False)).endswith("brittle@1, not purified")
    for wrong in ("tin", "tiny@3", "tiny@"):
        if wrong == "tiny@":
            assert Oracle.of(remote, wrong, purify=True).version == 2
            continue
        with pytest.raises(ServiceFailure, match=f"has no model '{wrong}'; it has .*tiny@2"):
            Oracle.of(remote, wrong, purify=True)


def models_reply() -> Reply:
    version = {"version": 1, "labels": ["dark", "grey", "bright"]}
    bundle = {"name": "tiny", "served_version": 1}
    spec = {"channels": 1, "height": 8, "width": 8}
    models = [{**bundle, "versions": [{**version, "input": spec}]}]
    return Reply(body=json.dumps({"default": "tiny", "models": models}).encode())


def grey_reply(*probabilities: float, purified: bool = False) -> Reply:
    """Grey for every image; each gets the next probability."""
    answers = [
        {
            "label": "grey",
            "top": [
                {"label": "grey", "probability": p},
                {"label": "dark", "probability": 1 - p},
            ],
            "purified": purified,
        }
        for p in probabilities
    ]
    return Reply(body=json.dumps(answers).encode())


def interrupt(seconds: float) -> None:
    """What Ctrl-C does to a pause."""
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("ending", "told"),
    [
        (Reply(429, b"{}", {"Retry-After": "3600"}), "asks to wait 3600 s"),
        (Reply(503), "it was interrupted"),
    ],
)
def test_an_attack_that_the_service_or_its_user_ends_keeps_what_it_found(
    ending: Reply, told: str
) -> None:
    grey = brightness_images()[0][3:5]
    with stub(models_reply(), *[grey_reply(0.9, 0.8)] * 3, ending) as service:
        remote = Client(service.address, patience=Patience(attempts=2), pause=interrupt)
        oracle = Oracle.of(remote, None, purify=False)
        ball = Ball.within("linf", 0.1)
        outcome = besiege(oracle, grey, ("grey", "grey"), ball=ball, queries=50, report=print)
        remote.close()
    assert outcome.ended_early is not None and told in outcome.ended_early
    assert outcome.queries.tolist() == [3, 3]
    assert outcome.robust.all() and outcome.clean_right.all()
    assert not np.array_equal(outcome.sent, outcome.clean)


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (grey_reply(0.9), "answers something else than was asked"),
        (grey_reply(0.9, 0.8, purified=True), "answers something else than was asked"),
        (Reply(body=b'[{"label": "grey"}]'), "is no Limbeck: odd answer"),
        (Reply(413, b'{"title": "", "code": "body_too_large"}'), "413 body_too_large"),
        (Reply(413, b'{"title": "", "code": "too_many_images"}'), "413 too_many_images"),
    ],
)
def test_odd_answers_are_not_counted(reply: Reply, message: str) -> None:
    with stub(models_reply(), reply) as service:
        remote = Client(service.address)
        oracle = Oracle.of(remote, None, purify=False)
        with pytest.raises(ServiceFailure, match=message):
            list(oracle.ask(brightness_images()[0][:2]))
        remote.close()


def test_another_kind_of_service_is_told_so() -> None:
    with stub(Reply(body=b'{"models": []}')) as service:
        remote = Client(service.address)
        with pytest.raises(ServiceFailure, match="is no Limbeck"):
            Oracle.of(remote, None, purify=False)
        remote.close()


@pytest.mark.parametrize(
    ("norm", "epsilon", "expected"),
    [
        ("linf", 0.3, 76 / 255),
        ("linf", 8 / 255, 8 / 255),
        ("linf", 1.0, 1.0),
        ("l2", 0.5, 0.5),
    ],
)
def test_epsilon_is_what_8_bits_can_hold(norm: Norm, epsilon: float, expected: float) -> None:
    assert Ball.within(norm, epsilon).epsilon == expected


@pytest.mark.parametrize(
    ("norm", "epsilon"), [("linf", 0.003), ("linf", 1.1), ("linf", -0.3), ("l2", 0.001)]
)
def test_an_epsilon_that_8_bits_cannot_hold_is_refused(norm: Norm, epsilon: float) -> None:
    with pytest.raises(ValueError, match=r"must be at least 1/255"):
        Ball.within(norm, epsilon)


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 0.1), ("l2", 0.3), ("l2", 2.0)])
def test_rounding_leaves_no_image_outside_of_the_ball(norm: Norm, epsilon: float) -> None:
    ball = Ball.within(norm, epsilon)
    generator = np.random.default_rng(0)
    clean = generator.integers(0, 256, (50, 3, 9, 7), dtype=np.uint8)
    moves = generator.normal(size=clean.shape)
    if norm == "linf":
        moves = np.sign(moves) * ball.epsilon
    else:
        moves *= ball.epsilon / np.sqrt((moves**2).sum(axis=(1, 2, 3), keepdims=True))
    wanted = torch.from_numpy((clean / 255 + moves).clip(0, 1).astype(np.float32))
    levels = ball.on_levels(wanted, clean)
    moved = levels.astype(np.float64) - clean.astype(np.float64)
    assert ball.holds(moved).all()
    asked_for = wanted.numpy().astype(np.float64) * 255 - clean
    if norm == "linf":
        assert np.abs(moved - asked_for).max() < 1e-3
    else:
        lengths = [np.sqrt((m**2).sum(axis=(1, 2, 3))) for m in (moved, asked_for)]
        assert (lengths[0] <= epsilon * 255 * (1 + 1e-6)).all()
        assert (lengths[0] >= 0.8 * lengths[1]).all()  # and little is given away


def answer(label: str, *probabilities: float) -> Answer:
    top = [{"label": label, "probability": p} for p in probabilities]
    return Answer.model_validate({"label": label, "top": top, "purified": False})


def test_scores_have_the_margins_of_the_logits() -> None:
    logits = torch.tensor([[2.0, -1.0, 0.5], [-30.0, 3.0, 1.0]], dtype=torch.float64)
    probabilities = logits.softmax(1).sort(descending=True).values
    labels = ("a", "b", "c")
    answers = tuple(
        answer(labels[int(row.argmax())], *p[:2].tolist())
        for row, p in zip(logits, probabilities, strict=True)
    )
    scores = scores_of(answers, labels).sort(descending=True).values
    assert (scores[:, 0] - scores[:, 1]).tolist() == pytest.approx([1.5, 2.0], abs=1e-5)


@pytest.mark.parametrize("probabilities", [(0.5, 0.5), (1.0, 0.0), (1.0, 5e-324)])
def test_the_label_is_always_the_best_and_scores_are_finite(
    probabilities: tuple[float, float],
) -> None:
    scores = scores_of((answer("b", *probabilities),), ("a", "b", "c"))
    assert scores.argmax() == 1
    assert scores[0, 1] > scores[0, 0] and bool(scores.isfinite().all())


def test_a_label_from_nowhere_is_named() -> None:
    with pytest.raises(ServiceFailure, match=r"does not list: \['z'\]"):
        scores_of((answer("z", 0.5, 0.5),), ("a", "b"))
