import json
from pathlib import Path

import pytest

from tests.training.cards import make_card
from training.card_files import HISTORY_FILE, write_card


def test_training_records_are_a_line_each_of_few_digits(tmp_path: Path) -> None:
    record = {"epoch": 1, "loss": 2.95969696969, "clean": 0.443, "seconds": 1234.56789012}
    history = {"student": [record, {**record, "epoch": 2}], "ablation_none": []}
    out = tmp_path / "out"
    write_card(make_card(), {}, history, 0.5, tmp_path / "no bundle", out)
    text = (out / HISTORY_FILE).read_text()
    assert '\n{"epoch": 1, "loss": 2.959697, "clean": 0.443, "seconds": 1234.56789},\n' in text
    read = json.loads(text)
    assert read.keys() == history.keys()
    assert read["student"][1] == pytest.approx({**record, "epoch": 2}, abs=1e-6)
    assert read["ablation_none"] == []
