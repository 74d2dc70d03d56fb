"""The tables and commands of the README and of docs/ say what the code does."""

import re
import subprocess
from dataclasses import fields
from pathlib import Path

import pytest
from pydantic_core import PydanticUndefined

from app.errors import ServiceError
from app.metrics import Metrics
from app.settings import PREFIX, Settings
from training.card import Card
from training.classifier_options import ClassifierOptions, options_of
from training.cli import parser

ROOT = Path(__file__).parents[2]
DOCUMENTS = ("*.md", "docs/*.md", "benchmarks/*.md", "training/*.md", "models/*/*/CARD.md")


def section(title: str, document: str) -> str:
    """What stands under a heading, up to the next one."""
    text = (ROOT / document).read_text()
    found = re.search(rf"^#+ {re.escape(title)}\n(.*?)(?=^#|\Z)", text, re.M | re.S)
    assert found, title
    return found[1]


def table(title: str, document: str) -> list[list[str]]:
    """The cells of the section's table: its head, what is below it, and the line between."""
    lines = [line for line in section(title, document).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def rows(title: str, document: str = "docs/service.md") -> list[list[str]]:
    """The cells of the section's table, without its head."""
    return [[cell.strip("`") for cell in row] for row in table(title, document)[2:]]


def commands(document: str = "README.md") -> list[list[str]]:
    """The fenced shell blocks' lines, comments left out."""
    blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / document).read_text(), re.M | re.S)
    lines = [[re.sub(r"\s+#.*", "", line) for line in block.splitlines()] for block in blocks]
    return [[line for line in block if line] for block in lines]


def anchors(document: Path) -> set[str]:
    """Of its headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def error_classes(root: type[ServiceError] = ServiceError) -> list[type[ServiceError]]:
    return [root, *(c for child in root.__subclasses__() for c in error_classes(child))]


def test_the_error_table_is_the_error_tree() -> None:
    documented = {(int(status), code) for status, code, _ in rows("Errors")}
    assert documented == {(error.status, error.code) for error in error_classes()}


def test_the_settings_table_is_what_the_service_reads() -> None:
    documented = {name: default for name, default, _ in rows("Settings")}
    assert documented.keys() == {PREFIX + name.upper() for name in Settings.model_fields}
    for name, field in Settings.model_fields.items():
        default = field.get_default(call_default_factory=True)
        assert default is not PydanticUndefined
        shown = documented[PREFIX + name.upper()].replace(",", "")
        if default is None or default == ():
            assert shown == "unset"
        elif isinstance(default, int | float):
            assert float(shown) == default, name
        else:
            assert shown == str(default), name


def test_the_metrics_table_is_what_the_service_counts() -> None:
    documented = {name.split("{")[0]: kind for name, kind, _ in rows("Metrics")}
    text = Metrics().render().decode()
    assert documented == dict(re.findall(r"^# TYPE (\S+) (\S+)", text, re.M))


def test_the_training_commands_are_understood() -> None:
    lines = [line.split()[1:] for line in commands()[2]]
    parsed = [parser().parse_args(arguments) for arguments in lines]
    assert [arguments.command for arguments in parsed] == ["data", "run", "evaluate"]


def test_the_attack_commands_are_understood_and_name_their_model() -> None:
    shown = [line.split()[1:] for line in commands()[4]]
    assert shown == [line.split()[1:] for line in commands("docs/attack.md")[0]]
    parsed = [parser().parse_args(arguments) for arguments in shown]
    assert [arguments.command for arguments in parsed] == ["attack", "recount"]
    assert all(
        arguments.model in {path.name for path in (ROOT / "models").iterdir()}
        for arguments in parsed
    )


def test_the_command_for_a_brought_classifier_is_understood() -> None:
    first, second, third = commands()[3]
    found = options_of(parser().parse_args(first.split()[1:]))
    assert found is not None and found.source.endswith(".onnx")
    assert second in commands()[0]
    assert (
        third.replace("photo.jpg", "docs/sign.png").replace("=images", "=gtsrb") in (commands()[1])
    )


def test_the_table_of_options_is_what_describes_a_classifier() -> None:
    shown = {name for name, _ in rows("Describing it", "docs/classifier.md")}
    named = set(re.findall(r"--[a-z-]+", " ".join(shown)))
    described = {"--" + field.name.replace("_", "-") for field in fields(ClassifierOptions)}
    assert named == described - {"--source"} | {"--labels", "--size", "--grey"}


def test_the_entry_commands_exist() -> None:
    assert commands()[0] == ["make serve", "make test", "docker compose up"]
    for command in ("serve", "test"):
        result = subprocess.run(
            ["make", "--dry-run", command], cwd=ROOT, capture_output=True, text=True
        )
        assert result.returncode == 0, result.stderr


def test_make_serve_prints_the_curl_lines_of_the_readme() -> None:
    result = subprocess.run(
        ["make", "--dry-run", "serve", "PORT=8000"], cwd=ROOT, capture_output=True, text=True
    )
    printed = re.findall(r"(curl .*)\"", result.stdout)
    assert printed == commands()[1]
    assert len(printed) == 4


def test_every_target_of_make_that_documents_name_exists() -> None:
    text = "\n".join(path.read_text() for pattern in DOCUMENTS for path in ROOT.glob(pattern))
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", text, re.M))
    assert {"serve", "test", "check", "bench"} <= named
    assert named <= set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))


@pytest.mark.parametrize("target", ["serve", "test"])
def test_ci_runs_the_readme_commands(target: str) -> None:
    script = (ROOT / ".ci/run").read_text()
    assert f"'make {target}')" in script
    assert f"make {target}" in commands()[0]


def test_every_local_link_leads_somewhere() -> None:
    documents = [path for pattern in DOCUMENTS for path in ROOT.glob(pattern)]
    links = [
        (document, link)
        for document in documents
        for link in re.findall(r"\]\(([^):\s]+)\)", document.read_text())
    ]
    assert {ROOT / "README.md", ROOT / "models/mnist/1/CARD.md"} <= {path for path, _ in links}
    for document, link in links:
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        assert target.exists(), f"{document}: {link}"
        assert not anchor or anchor in anchors(target), f"{document}: {link}"


CARD_ROWS = {
    "clean, classifier alone": "bare_clean",
    "clean, purified": "purified_clean",
    "attack on the classifier, nothing purifies": "bare_autoattack",
    "grey-box: the same attack, then purified": "grey_box",
    "end-to-end: AutoAttack on purifier and classifier": "end_to_end_autoattack",
    "worst case over all attacks": "headline",
}


def test_the_table_of_figures_is_what_the_cards_say() -> None:
    bundles = [name.split("`")[1] for name in table("How much it helps", "README.md")[0][1:]]
    paths = {path.parents[1].name: path for path in ROOT.glob("models/*/*/card.json")}
    assert sorted(bundles) == sorted(paths)
    cards = [Card.model_validate_json(paths[bundle].read_bytes()) for bundle in bundles]
    assert not any(card.quick for card in cards)
    shown = {
        what.replace("*", ""): figures for what, *figures in rows("How much it helps", "README.md")
    }
    assert shown.keys() == CARD_ROWS.keys()
    for what, key in CARD_ROWS.items():
        measured = [card.headline if key == "headline" else card.row(key) for card in cards]
        assert shown[what] == [f"{100 * row.accuracy:.1f}" for row in measured], what
