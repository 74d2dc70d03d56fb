import pytest
import torch
from pydantic import ValidationError

from tests.training.cards import make_card
from training.card import Card, accuracy_row, wilson_interval


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    # Newcombe 1998, table I, method 3.
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_intervals_of_the_literature(correct: int, n: int, low: float, high: float) -> None:
    assert wilson_interval(correct, n) == pytest.approx((low, high), abs=5e-5)


def test_no_images_have_no_interval() -> None:
    with pytest.raises(ValueError, match="n > 0"):
        wilson_interval(0, 0)


def test_a_row_counts_its_images() -> None:
    row = accuracy_row("key", "Title", torch.tensor([True, True, False, True]), defence="none")
    assert (row.n, row.correct, row.accuracy, row.sees) == (4, 3, 0.75, "nothing")
    assert row.low < 0.75 < row.high


def test_a_card_made_before_a_field_existed_still_loads() -> None:
    older = make_card().model_dump(exclude={"unseen", "steps", "corruptions", "cost", "source"})
    card = Card.model_validate(older)
    assert (card.unseen, card.steps, card.corruptions, card.cost) == ((), None, None, None)
    assert card.source == "weights"


def test_a_card_survives_its_file_and_refuses_what_it_does_not_know() -> None:
    card = make_card()
    assert Card.model_validate_json(card.model_dump_json()) == card
    assert card.row("purified_clean").accuracy == 0.98
    assert card.row("unseen_l2").correct == 29
    with pytest.raises(ValidationError, match="surprise"):
        Card.model_validate({**card.model_dump(), "surprise": 1})
