from pathlib import Path

import pytest
import torch

from training.attacks import Norm
from training.colophon import colophon
from training.state import State
from training.subject import load_subject, protocol_of, trial_of


@pytest.mark.parametrize(
    ("norm", "epsilon", "options"),
    [
        ("linf", None, "--n 5 --seed 0"),
        ("linf", 0.1, "--n 5 --seed 0 --epsilon 0.1"),
        ("l2", None, "--n 5 --seed 0 --epsilon 2.0 --norm l2"),
        # The recipe's epsilon is of another norm, and no default of this one.
        ("l2", 0.3, "--n 5 --seed 0 --epsilon 0.3 --norm l2"),
    ],
)
def test_the_command_of_a_card_attacks_as_far_again(
    norm: Norm, epsilon: float | None, options: str, digit_bundle: Path, digit_data: Path
) -> None:
    subject = load_subject(digit_bundle, digit_data)
    protocol = protocol_of(subject, n=5, epsilon=epsilon, norm=norm)
    trial = trial_of(subject, protocol, State(None), torch.device("cpu"), print)
    assert colophon(subject, trial)["command"].endswith(options)
