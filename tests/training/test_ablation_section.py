import torch

from tests.training.cards import make_card
from training.ablation_section import ablation_section
from training.card import Ablation, Card, accuracy_row
from training.stages import repeats


def student(key: str, title: str, *right: int) -> Ablation:
    """One that is right so many times of 100: clean, grey-box, end-to-end."""
    clean, grey_box, end_to_end = (
        accuracy_row(f"{key}_{kind}", title, torch.arange(100) < count, defence=key)
        for kind, count in enumerate(right)
    )
    return Ablation(key=key, title=title, clean=clean, grey_box=grey_box, end_to_end=end_to_end)


def card_of(*ablations: Ablation) -> Card:
    return make_card().model_copy(update={"ablations": ablations})


def test_several_seeds_are_one_line_with_their_spread() -> None:
    both = zip(repeats("ablation_both", 3), (90, 92, 94), (80, 80, 80), (40, 50, 60), strict=True)
    none = zip(repeats("ablation_none", 3), (93, 93, 93), (70, 73, 76), (30, 30, 33), strict=True)
    page = ablation_section(
        card_of(
            student("student", "The one served", 95, 85, 70),
            *(student(key, "Student of both teachers", *right) for key, *right in both),
            *(student(key, "Student without teachers", *right) for key, *right in none),
        )
    )
    assert page.count("| The one served | - | **95.0** (88.8 to 97.8) ") == 1
    assert "| Student of both teachers | - | 92.0 ± 2.0 | 80.0 ± 0.0 | 50.0 ± 10.0 |" in page
    assert "there are 3 each" in page
    # Standard errors: sqrt(4/3 + 0), sqrt(0 + 9/3), sqrt(100/3 + 3/3).
    assert (
        "- Student of both teachers less student without teachers: "
        "clean -1.0 ± 1.2, grey-box +7.0 ± 1.7, end-to-end +19.0 ± 5.9"
    ) in page


def test_an_encoder_that_all_students_began_with_is_told() -> None:
    both = [student(key, "Both", 90, 80, 40) for key in repeats("ablation_both", 2)]
    apart = card_of(*both)
    assert "encoder" not in ablation_section(apart)
    page = ablation_section(apart.model_copy(update={"shared_encoder": True}))
    assert "All students, the one without teachers too, began with one encoder" in page
    assert "by the seed of their other weights and batches" in page


def test_one_seed_shows_no_spread() -> None:
    page = ablation_section(card_of(student("ablation_both", "Student of both", 90, 80, 40)))
    assert "| Student of both | - | **90.0** (82.6 to 94.5) " in page
    assert "±" not in page and "seed" not in page.split("|")[0]


def test_without_ablation_there_is_no_section() -> None:
    assert ablation_section(card_of()) == ""
