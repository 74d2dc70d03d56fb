from training.ablation import purifiers
from training.stages import ABLATIONS, kind_of, repeats


def test_the_students_of_one_kind_stand_together_and_the_served_one_first() -> None:
    names = ["surrogate_purifier", *repeats("ablation_normal", 2), "classifier", "student"]
    names += repeats("ablation_both", 3)
    assert purifiers(names) == [
        "student",
        "ablation_normal",
        "ablation_normal_2",
        "ablation_both",
        "ablation_both_2",
        "ablation_both_3",
    ]


def test_no_student_is_of_two_kinds() -> None:
    names = [name for kind in ABLATIONS for name in repeats(kind, 3)]
    assert len(set(names)) == 3 * len(ABLATIONS)
    assert [kind_of(name) for name in names] == [kind for kind in ABLATIONS for _ in range(3)]
    assert repeats("ablation_none", 0) == []
