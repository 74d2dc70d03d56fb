import json
from pathlib import Path

import pytest
import torch

from app.bundle import BundleError
from tests.bundles import Design, make_bundle, replace_file
from tests.training.cards import make_card
from training.card import Card, Row, accuracy_row
from training.cli import main
from training.comparison import Difference, Line, caveats, difference, lines_of, read_card
from training.comparison_report import comparison_text, names_of


def row(correct: int, n: int) -> Row:
    return accuracy_row("row", "Row", torch.arange(n) < correct, defence="student")


def lines_by_title(*cards: Card) -> dict[str, Line]:
    return {line.title: line for line in lines_of(cards)}


def changed(card: Card, **changes: object) -> Card:
    """The card with other settings, its attacked rows too."""
    settings = {k: v for k, v in changes.items() if k in ("norm", "epsilon", "attack", "sees")}
    rows = tuple(
        found.model_copy(update=settings) if found.attack else found for found in card.rows
    )
    own = {k: v for k, v in changes.items() if k not in ("attack", "sees")}
    return card.model_copy(update={**own, "rows": rows, "headline": rows[-1]})


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        # Newcombe 1998, table II, method 10, second less first.
        ((48, 80), (56, 70), (0.2, 0.0524, 0.3339)),
        ((3, 10), (9, 10), (0.6, 0.1705, 0.8090)),
        ((0, 29), (5, 56), (0.0893, -0.0381, 0.1926)),
        ((0, 10), (0, 20), (0.0, -0.2775, 0.1611)),
        ((0, 10), (10, 10), (1.0, 0.6075, 1.0)),
    ],
)
def test_the_interval_of_a_difference_is_newcombe_s(
    first: tuple[int, int], second: tuple[int, int], expected: tuple[float, float, float]
) -> None:
    found = difference(row(*first), row(*second))
    assert (found.value, found.low, found.high) == pytest.approx(expected, abs=1e-4)
    turned = difference(row(*second), row(*first))
    assert (turned.value, turned.low, turned.high) == pytest.approx(
        (-found.value, -found.high, -found.low)
    )


def test_only_an_interval_without_0_is_beyond_noise() -> None:
    assert difference(row(48, 80), row(56, 70)).beyond_noise
    assert difference(row(56, 70), row(48, 80)).beyond_noise
    assert not difference(row(50, 100), row(55, 100)).beyond_noise


def test_every_figure_of_the_cards_is_a_line() -> None:
    card = make_card()
    lines = lines_by_title(card, card)
    assert lines.keys() == {
        "Clean, purified",
        "Worst case",
        "Unseen threat, end-to-end",
        *(
            f"Ablation: {title}, {kind}"
            for title in ("The student that is served", "Normal teacher itself")
            for kind in ("clean", "grey-box", "end-to-end")
        ),
    }
    assert lines["Worst case"].rows == (card.headline, card.headline)
    (same,) = lines["Worst case"].differences
    assert isinstance(same, Difference) and same.value == 0 and not same.beyond_noise


def test_like_cards_have_nothing_against_their_comparison() -> None:
    assert caveats(["a", "b"], [make_card(), make_card()]) == []


def test_a_card_that_failed_a_check_or_is_no_white_box_says_so_beside_its_like() -> None:
    cards = [changed(make_card(masked=True), sees="surrogate")] * 2
    assert caveats(["a", "b"], cards) == [
        f"{name} {flaw}"
        for name in ("a", "b")
        for flaw in (
            "was attacked with a surrogate's gradients: none of its rows is a white-box attack",
            "failed a check of its evaluation: Square leaves 50.0%",
        )
    ]


@pytest.mark.parametrize(
    ("changes", "caveat", "attacked", "clean"),
    [
        ({"quick": True}, "b is a trial with shortened attacks", "a trial", None),
        ({"epsilon": 0.1}, "other epsilons (a: 0.3, b: 0.1)", "other epsilon or norm", None),
        ({"norm": "l2"}, "other norms (a: linf, b: l2)", "other epsilon or norm", None),
        ({"data_sha256": "45"}, "other test images", "other data", "other data"),
        ({"n": 50}, "other numbers of images (a: 100, b: 50)", None, None),
        ({"seed": 1}, "another random choice of images (a: seed 0, b: seed 1)", None, None),
        ({"versions": {"torch": "3"}}, "other versions of the programs", None, None),
        ({"attack": "a longer attack"}, None, "another attack", None),
        (
            {"sees": "surrogate"},
            "b was attacked with a surrogate's gradients: none of its rows is a white-box attack",
            "another access",
            None,
        ),
        (
            {"omitted": ("Not measured: transfer.",)},
            "other omissions (a: none, b: Not measured: transfer.)",
            None,
            None,
        ),
    ],
)
def test_what_cannot_be_compared_is_said_and_not_judged(
    changes: dict[str, object], caveat: str | None, attacked: str | None, clean: str | None
) -> None:
    cards = [make_card(), changed(make_card(), **changes)]
    found = caveats(["a", "b"], cards)
    assert [caveat in text for text in found if caveat] == ([True] if caveat else [])
    lines = lines_by_title(*cards)
    for title, reason in (("Worst case", attacked), ("Clean, purified", clean)):
        (judged,) = lines[title].differences
        assert (judged if isinstance(judged, str) else None) == reason, title
    if caveat is not None:
        head, rest = comparison_text(["a", "b"], cards).split("\n\n", 1)
        assert head.startswith("Not comparable in all respects:") and caveat in head
        assert rest.startswith("accuracy, %")


def test_a_figure_that_one_card_lacks_is_shown_alone() -> None:
    bare = make_card().model_copy(update={"ablations": ()})
    line = lines_by_title(bare, make_card())["Ablation: Normal teacher itself, clean"]
    assert line.rows[0] is None and line.rows[1] is not None
    assert line.differences == ("not in both",)


def test_three_cards_are_compared_with_the_first() -> None:
    better = changed(make_card())
    rows = tuple(
        accuracy_row(
            r.key, r.title, torch.arange(100) < 90, defence="", sees=r.sees, attack=r.attack
        )
        if r.attack
        else r
        for r in better.rows
    )
    rows = tuple(
        r.model_copy(update={"norm": "linf", "epsilon": 0.3}) if r.attack else r for r in rows
    )
    better = better.model_copy(update={"rows": rows, "headline": rows[-1]})
    text = comparison_text(["a", "b", "c"], [make_card(), make_card(), better], markdown=True)
    (worst,) = [line for line in text.splitlines() if line.startswith("| Worst case")]
    cells = [cell.strip() for cell in worst.strip("|").split("|")]
    assert cells[1] == "50.0 (40.4 to 59.6) n=100"
    assert cells[4] == "within noise"
    assert cells[5] == "90.0 (82.6 to 94.5) n=100"
    assert cells[6].startswith("+40.0 (+27.") and cells[7] == "HIGHER"
    assert text.splitlines()[1].count("---") == len(cells) == 8
    assert "Of 18 comparisons" in text and "The same images were attacked" in text


def test_different_images_are_not_called_the_same() -> None:
    cards = [make_card(), make_card().model_copy(update={"seed": 1})]
    assert "The cards attacked different images" in comparison_text(["a", "b"], cards)


def test_cards_of_one_bundle_are_told_apart_by_their_paths() -> None:
    paths = [Path("old/card.json"), Path("new/card.json")]
    assert names_of(paths, [make_card(), make_card()]) == ["old/card.json", "new/card.json"]
    other = make_card().model_copy(update={"version": 4})
    assert names_of(paths, [make_card(), other]) == ["digits@3", "digits@4"]


def test_bundles_and_card_files_are_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = make_card()
    bundle = make_bundle(tmp_path, design=Design(card=card.model_dump(mode="json")))
    (tmp_path / "card.json").write_text(card.model_dump_json())
    assert read_card(bundle) == read_card(tmp_path / "card.json") == card
    assert main(["compare", str(bundle), str(tmp_path / "card.json")]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("accuracy, %") and "Worst case" in shown
    (bundle / "card.json").write_text(card.model_dump_json())
    with pytest.raises(BundleError, match=r"card\.json: has SHA-256"):
        read_card(bundle)


def test_what_is_no_card_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = make_bundle(tmp_path)
    with pytest.raises(BundleError, match="has no card; limbeck-train evaluate makes one"):
        read_card(bundle)
    replace_file(bundle, "card.json", json.dumps({"rows": []}).encode())
    with pytest.raises(ValueError, match="is no card that this program reads"):
        read_card(bundle)
    assert main(["compare", str(tmp_path / "none.json"), str(bundle)]) == 1
    assert "none.json: cannot be read" in capsys.readouterr().err
