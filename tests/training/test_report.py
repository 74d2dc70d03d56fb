from tests.training.cards import make_card
from training.card import Check
from training.report import command_line, report
from training.steps import STEPS_BARE

PICTURES = ("epsilon.png", "detection.png", "examples.png")


def test_the_page_states_the_worst_case_first_and_how_to_run_it_again() -> None:
    page = report(make_card(), PICTURES)
    opening = page.split("##")[0]
    assert "50.0 % (40.4 % to 59.6 %) of the test images of digits are" in opening
    assert "98.0 % when nobody attacks" in opening
    assert "trial run" not in opening
    assert "| Worst case | purifier and classifier, with gradients | an attack |" in page
    assert "limbeck-train evaluate models/digits/3 --data <folder> --n 100 --seed 0" in page
    assert "run hardened" not in page
    trained = report(make_card().model_copy(update={"training": "limbeck-train run hardened"}), ())
    assert "```\nlimbeck-train run hardened\nlimbeck-train evaluate" in trained
    assert "without `weights.safetensors` it makes the rows that need neither teachers" in trained
    assert "0.987" in page and "0.125 bits" in page
    assert all(f"]({name})" in page for name in PICTURES)


def test_the_page_shows_what_else_was_tried_apart_from_the_worst_case() -> None:
    page = report(make_card(), PICTURES)
    assert "## Unseen threat: L2" in page and "L2 1.75, seed 0" in page
    assert "| **72.5** (57.2 to 83.9) | 40 |" in page
    assert "| FGSM | 20.0 | 75.0 |\n| PGD-100 | 0.0 | 61.0 |\n| AutoAttack | 0.0 | 58.0 |" in page
    assert "| None | - | - | 99.0 | 98.0 |\n| JPEG | 2 | quality 25 | 71.0 | 83.0 |" in page
    assert "1.0 % (0.2 to 5.4, n = 100)" in page


def test_an_older_card_without_them_has_no_empty_sections() -> None:
    older = make_card().model_copy(update={"unseen": (), "steps": None, "corruptions": None})
    page = report(older, PICTURES)
    for title in ("Unseen", "number of steps", "corruptions"):
        assert title not in page
    assert "Only L∞ perturbations were tried" in page


def test_pictures_that_are_not_there_are_not_shown() -> None:
    assert "](training.png)" not in report(make_card(), PICTURES)


def test_a_trial_run_says_so_first() -> None:
    assert "A trial run with shortened attacks" in report(make_card(quick=True), ()).split("##")[0]


def test_the_page_shows_the_cost_and_how_far_the_best_teacher_is() -> None:
    card = make_card()
    page = report(card, ())
    assert "1,234,567 multiply-adds for an image of 28x28x1, and 0.46 ms for one image" in page
    assert (
        "the student keeps 50.0 % and the best of its teachers 50.0 % (Normal teacher itself)"
        in page
    )
    assert "+0.0 points, with a 95 % interval of -13.6 to +13.6" in page
    assert "| The student that is served | 1,234,567 | **98.0** " in page
    student, teacher = card.ablations
    alone = report(card.model_copy(update={"ablations": (student,), "cost": None}), ())
    assert "## Cost" not in alone and "teachers" not in alone
    older = report(card.model_copy(update={"ablations": (teacher,), "cost": None}), ())
    assert "## Cost" not in older and "| Normal teacher itself | - | **98.0** " in older


def test_the_files_that_a_card_was_made_from_are_named() -> None:
    card = make_card()
    assert "ONNX files" not in report(card, ())
    opening = report(card.model_copy(update={"source": "onnx"}), ()).split("##")[0]
    assert "Purifier and classifier are the ONNX files that the service runs" in opening


def test_a_card_without_teachers_claims_no_check_of_them() -> None:
    assert "or the normal teacher survives" in report(make_card(), ())
    page = report(make_card().model_copy(update={"ablations": ()}), ())
    assert "the undefended classifier survives" in page


def test_what_is_only_a_warning_is_not_called_an_error() -> None:
    card = make_card()
    assert "if the undefended classifier or the normal teacher survives" in report(card, ())
    page = report(card.model_copy(update={"may_resist": True}), ())
    assert "classifier or the normal teacher survives is a warning here. The evaluation" in page
    assert "stops with an error if accuracy does not fall to chance" in page
    headline = card.headline.model_copy(update={"sees": "surrogate"})
    page = report(card.model_copy(update={"may_resist": True, "headline": headline}), ())
    assert "at the largest epsilon, is a warning here and stops nothing" in page
    assert "stops with an error" not in page


def test_a_check_of_the_classifier_alone_accuses_the_classifier() -> None:
    failed = Check(key=STEPS_BARE, passed=False, finding="PGD-100 on the classifier alone")
    page = report(make_card().model_copy(update={"checks": (failed,)}), ())
    assert "A check failed: the classifier may mask gradients" in page


def test_a_failed_check_is_not_hidden() -> None:
    page = report(make_card(masked=True), ())
    assert "| **failed** | Square leaves 50.0% |" in page
    assert "may mask gradients" in page and "a warning of the attack" in page
    assert "may mask gradients" not in report(make_card(), ())


def test_tables_have_as_many_cells_in_every_line() -> None:
    for block in report(make_card(), PICTURES).split("\n\n"):
        lines = [line for line in block.splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in lines}) <= 1


def test_the_command_names_only_what_was_asked_for() -> None:
    line = command_line("mnist", 1, {"n": 5, "quick": True, "other": False})
    assert line == "limbeck-train evaluate models/mnist/1 --data <folder> --n 5 --quick"
