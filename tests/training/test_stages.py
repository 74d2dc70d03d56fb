from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.training.tiny_runs import CLASSES, SPEC, tiny_dataset, tiny_recipe, tiny_run, tiny_split
from training.checkpoints import CheckpointError
from training.data import to_unit
from training.optimization import Batch
from training.recipes import Attack, Recipe, Shape
from training.run import (
    Run,
    accuracies_alone,
    accuracy,
    build_classifier,
    build_purifier,
    craft,
    precision_on,
    warmth,
)
from training.stages import (
    ABLATIONS,
    repeats,
    run_stages,
    train_classifier,
    train_student,
    train_teacher,
)

OTHERS = [name for kind in ABLATIONS for name in repeats(kind, 2)]

State = dict[str, Tensor]


def state_of(network: nn.Module) -> State:
    return {name: value.clone() for name, value in network.state_dict().items()}


def same(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_attacks_are_measured_on_images_of_every_class(tmp_path: Path) -> None:
    split = tiny_split(6000, 1)
    in_order = split.subset(split.labels.argsort(stable=True))
    run = tiny_run(tmp_path, dataset=replace(tiny_dataset(), train=in_order))
    measured = run.attacked_validation
    assert len(measured) == 500 < len(run.validation)
    assert measured.labels.bincount().min() > 100
    assert torch.equal(measured.labels, run.attacked_validation.labels)


def prepared(work: Path) -> Run:
    """A run with a classifier and both teachers."""
    run = tiny_run(work)
    recipe = run.recipe
    train_classifier(run, "classifier", recipe.seed)
    train_teacher(run, "normal_teacher", recipe.normal_teacher)
    train_teacher(run, "adversarial_teacher", recipe.adversarial_teacher)
    return run


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A recipe run from end to end; only read by the tests."""
    run = tiny_run(tmp_path_factory.mktemp("whole"))
    run_stages(run)
    return run


def test_a_run_gives_every_network_with_its_history(whole: Run) -> None:
    names = ["classifier", "normal_teacher", "adversarial_teacher", "student", *OTHERS]
    names += ["surrogate_classifier", "surrogate_purifier"]
    assert list(whole.networks) == list(whole.histories) == names
    for name, network in whole.networks.items():
        assert not network.training
        assert len(whole.histories[name]) == 2
        figures = {"clean"} if "classifier" in name else {"clean", "grey-box", "end-to-end"}
        assert whole.histories[name][-1].keys() == {"epoch", "loss", "seconds"} | figures
    assert sorted(path.stem for path in whole.work.glob("*.pt")) == sorted(names)


def test_no_two_stages_share_a_start_or_an_end(whole: Run) -> None:
    students = ["student", *OTHERS, "surrogate_purifier"]
    weights = [whole.networks[name].get_parameter("head.weight") for name in students]
    assert len({tuple(weight.flatten().tolist()) for weight in weights}) == len(students)
    one, other = (whole.networks[name] for name in ("classifier", "surrogate_classifier"))
    assert not same(state_of(one), state_of(other))


def test_another_seed_gives_other_networks(whole: Run, tmp_path: Path) -> None:
    other = tiny_run(tmp_path, replace(tiny_recipe(), seed=1))
    train_classifier(other, "classifier", 1)
    assert not same(state_of(whole.networks["classifier"]), state_of(other.networks["classifier"]))


@pytest.mark.parametrize("epochs_before", [3, 7])
def test_an_interrupted_run_ends_bit_for_bit_the_same(
    whole: Run, tmp_path: Path, epochs_before: int
) -> None:
    epochs = 0

    def interrupting(line: str) -> None:
        nonlocal epochs
        epochs += ": epoch" in line
        if epochs == epochs_before:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_stages(tiny_run(tmp_path, report=interrupting))
    lines: list[str] = []
    resumed = tiny_run(tmp_path, report=lines.append)
    run_stages(resumed)
    assert len([line for line in lines if ": epoch" in line]) == 28 - epochs_before
    for name, network in whole.networks.items():
        assert same(state_of(network), state_of(resumed.networks[name])), name


def test_a_whole_recipe_can_be_trained_in_bfloat16(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.run.precision_on", lambda device: torch.bfloat16)
    run = tiny_run(tmp_path)
    run_stages(run)
    for name, network in run.networks.items():
        state = network.state_dict()
        assert not any(value.dtype == torch.bfloat16 for value in state.values()), name
        assert all(bool(torch.isfinite(value).all()) for value in state.values()), name


@pytest.mark.parametrize(
    ("device", "supported", "expected"),
    [
        ("cpu", True, torch.float32),
        ("cuda", True, torch.bfloat16),
        ("cuda", False, torch.float32),
    ],
)
def test_only_a_gpu_that_can_trains_in_bfloat16(
    monkeypatch: pytest.MonkeyPatch, device: str, supported: bool, expected: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: supported)
    assert precision_on(torch.device(device)) == expected


def test_a_precision_that_is_asked_for_is_trained_in(whole: Run, tmp_path: Path) -> None:
    for precision, unchanged in ((torch.float32, True), (torch.bfloat16, False)):
        run = tiny_run(tmp_path / str(precision))
        run.precision = precision
        train_classifier(run, "classifier", run.recipe.seed)
        found, expected = (state_of(one.networks["classifier"]) for one in (run, whole))
        assert same(found, expected) is unchanged


def test_a_classifier_may_learn_from_attacked_images_too(tmp_path: Path) -> None:
    recipe = replace(tiny_recipe(epochs=30, learning_rate=1e-2), epsilon=0.2)
    natural = tiny_run(tmp_path / "natural", recipe)
    train_classifier(natural, "classifier", recipe.seed)
    assert "attacked" not in natural.histories["classifier"][-1]
    run = tiny_run(tmp_path / "adversarial", attacking(recipe))
    train_classifier(run, "classifier", recipe.seed)
    attacked = accuracies_alone(natural, natural.networks["classifier"])["attacked"]
    assert run.histories["classifier"][-1]["attacked"] > attacked + 0.4


def test_a_classifier_is_bound_to_its_attack(tmp_path: Path) -> None:
    recipe = attacking(tiny_recipe(1))
    train_classifier(tiny_run(tmp_path, recipe), "classifier", recipe.seed)
    for other in (replace(recipe, epsilon=0.2), tiny_recipe(1)):
        with pytest.raises(CheckpointError, match=r"classifier\.pt"):
            train_classifier(tiny_run(tmp_path, other), "classifier", recipe.seed)


def attacking(recipe: Recipe) -> Recipe:
    """The recipe with a classifier that is trained against attacks."""
    attack = Attack("classifier", steps=5, step=0.3)
    return replace(recipe, classifier=replace(recipe.classifier, attack=attack))


def test_training_leaves_teachers_and_classifier_untouched(tmp_path: Path) -> None:
    run = prepared(tmp_path)
    before = {name: state_of(network) for name, network in run.networks.items()}
    train_student(run, "student", run.recipe.distillation)
    for name, state in before.items():
        assert same(state, state_of(run.networks[name])), name
    assert run.networks.keys() == {*before, "student"}


def test_a_teacher_leaves_the_classifier_untouched(tmp_path: Path) -> None:
    run = tiny_run(tmp_path)
    train_classifier(run, "classifier", 0)
    before = state_of(run.networks["classifier"])
    train_teacher(run, "adversarial_teacher", run.recipe.adversarial_teacher)
    assert same(before, state_of(run.networks["classifier"]))


def overfitted(work: Path) -> Run:
    """A run whose every epoch is one and the same batch."""
    recipe = tiny_recipe(epochs=40, learning_rate=3e-2)
    classifier = replace(recipe.classifier, dropout=0.0)
    dataset = replace(tiny_dataset(), train=tiny_split(10, 1))
    return tiny_run(work, replace(recipe, classifier=classifier), dataset)


def test_each_stage_overfits_one_batch(tmp_path: Path) -> None:
    run = overfitted(tmp_path)
    recipe = run.recipe
    assert len(run.training) == recipe.classifier.schedule.batch_size
    train_classifier(run, "classifier", 0)
    assert run.histories["classifier"][-1]["loss"] < 0.1 * run.histories["classifier"][0]["loss"]
    train_teacher(run, "normal_teacher", recipe.normal_teacher)
    pixels = [record["loss"] for record in run.histories["normal_teacher"]]
    assert pixels[-1] < 0.25 * pixels[0]
    # Small epsilon: the attack moves along, the batch does not.
    gentle = Attack("pipeline", steps=2, step=0.5, epsilon_scale=0.05)
    teacher = replace(recipe.adversarial_teacher, attack=gentle)
    train_teacher(run, "adversarial_teacher", teacher)
    losses = [record["loss"] for record in run.histories["adversarial_teacher"]]
    assert losses[-1] < 0.35 * losses[0]
    train_student(run, "student", replace(recipe.distillation, attack=gentle))
    losses = [record["loss"] for record in run.histories["student"]]
    assert losses[-1] < 0.5 * losses[0]


def test_attacks_through_the_pipeline_differ_from_those_on_the_classifier(whole: Run) -> None:
    purifier, classifier = whole.networks["student"], whole.networks["classifier"]
    images = to_unit(whole.training.images[:8])

    def crafted(attack: Attack, epoch: float = 5.0) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        batch = Batch(images, whole.training.labels[:8], epoch, generator)
        return craft(purifier, classifier, batch, attack, epsilon=0.2)

    through = Attack("pipeline", steps=3, step=0.5, epsilon_scale=1.5, ramp_epochs=2.0)
    bare = replace(through, through="classifier")
    assert not torch.equal(crafted(through), crafted(bare))
    assert float((crafted(through) - images).abs().max()) == pytest.approx(0.3, abs=1e-6)
    # Half-way up the ramp the ball is half as large; at its foot there is none.
    assert float((crafted(through, 1.0) - images).abs().max()) == pytest.approx(0.15, abs=1e-6)
    assert torch.equal(crafted(through, 0.0), images)


def test_a_share_of_the_examples_is_made_against_the_bare_classifier(whole: Run) -> None:
    purifier, classifier = whole.networks["student"], whole.networks["classifier"]
    images, labels = to_unit(whole.training.images[:8]), whole.training.labels[:8]

    def crafted(attack: Attack, count: int) -> Tensor:
        batch = Batch(images[:count], labels[:count], 1.0, torch.Generator().manual_seed(0))
        return craft(purifier, classifier, batch, attack, epsilon=0.2)

    through = Attack("pipeline", steps=3, step=0.5)
    bare = replace(through, through="classifier")
    mixed = crafted(replace(through, bare_share=0.25), 8)
    assert mixed.shape == images.shape
    assert torch.equal(mixed[:2], crafted(bare, 2))
    assert not torch.equal(mixed[2:], crafted(replace(bare, bare_share=0.25), 8)[2:])
    assert torch.equal(crafted(replace(through, bare_share=1.0), 8), crafted(bare, 8))


def test_crafting_leaves_a_purifier_in_training_as_it_was(whole: Run) -> None:
    torch.manual_seed(0)
    purifier = build_purifier(Shape((4,), (0,)), SPEC).train()
    before = state_of(purifier)
    batch = Batch(
        torch.rand(4, *SPEC.shape), torch.zeros(4, dtype=torch.int64), 1.0, torch.Generator()
    )
    attack = Attack("pipeline", steps=2, step=0.5)
    craft(purifier, whole.networks["classifier"], batch, attack, epsilon=0.1)
    assert purifier.training
    assert same(before, state_of(purifier))
    assert all(parameter.grad is None for parameter in purifier.parameters())


@pytest.mark.parametrize(
    ("epoch", "ramp_epochs", "expected"),
    [(0.0, 2.0, 0.0), (0.5, 2.0, 0.25), (2.0, 2.0, 1.0), (7.0, 2.0, 1.0), (0.0, 0.0, 1.0)],
)
def test_the_ramp_grows_to_one(epoch: float, ramp_epochs: float, expected: float) -> None:
    attack = Attack("classifier", steps=1, step=1.0, ramp_epochs=ramp_epochs)
    batch = Batch(torch.zeros(1, 1, 1, 1), torch.zeros(1), epoch, torch.Generator())
    assert warmth(batch, attack) == expected
    assert warmth(batch, None) == 1.0


@pytest.mark.parametrize(
    ("name", "teacher", "depends"),
    [
        ("ablation_normal", "adversarial_teacher", False),
        ("ablation_normal", "normal_teacher", True),
        ("ablation_adversarial", "normal_teacher", False),
        ("ablation_adversarial", "adversarial_teacher", True),
        ("ablation_both", "normal_teacher", True),
        ("ablation_both", "adversarial_teacher", True),
        ("ablation_none", "normal_teacher", False),
        ("ablation_none", "adversarial_teacher", False),
    ],
)
def test_an_ablation_learns_from_the_teachers_it_names(
    whole: Run, tmp_path: Path, name: str, teacher: str, depends: bool
) -> None:
    run = tiny_run(tmp_path)
    run.networks.update(whole.networks)
    run.identities.update(whole.identities)
    torch.manual_seed(9)
    run.networks[teacher] = build_purifier(run.recipe.teacher, SPEC).eval()
    shares = ABLATIONS[name] or run.recipe.distillation.normal_share
    stage = replace(run.recipe.distillation, schedule=run.recipe.ablation, normal_share=shares)
    train_student(run, name, stage, taught=name != "ablation_none")
    unchanged = same(state_of(run.networks[name]), state_of(whole.networks[name]))
    assert unchanged is not depends


def test_a_normal_teacher_does_not_depend_on_the_classifier(
    tmp_path: Path,
) -> None:
    run = tiny_run(tmp_path)
    train_classifier(run, "classifier", 0)
    torch.manual_seed(3)
    run.networks["other"] = build_classifier(run.recipe, 1, len(CLASSES)).eval()
    run.identities["other"] = "other"
    stage = run.recipe.normal_teacher
    train_teacher(run, "normal_teacher", stage)
    first = state_of(run.networks["normal_teacher"])
    elsewhere = tiny_run(tmp_path / "elsewhere")
    elsewhere.networks, elsewhere.identities = run.networks, run.identities
    train_teacher(elsewhere, "normal_teacher", stage, against="other")
    assert same(first, state_of(elsewhere.networks["normal_teacher"]))


@pytest.mark.parametrize(
    "changed",
    [
        replace(tiny_recipe(), epsilon=0.1),
        replace(tiny_recipe(), seed=5),
        replace(tiny_recipe(), validation_fraction=0.3),
        tiny_recipe(epochs=3),
        replace(tiny_recipe(), teacher=Shape((4, 12), (0, 0))),
    ],
    ids=["epsilon", "seed", "validation", "epochs", "shape"],
)
def test_checkpoints_of_other_settings_are_refused(whole: Run, changed: Recipe) -> None:
    with pytest.raises(CheckpointError, match="other settings, data or seed"):
        run_stages(tiny_run(whole.work, changed))


def test_checkpoints_of_other_data_are_refused(whole: Run) -> None:
    with pytest.raises(CheckpointError, match=r"classifier\.pt"):
        run_stages(tiny_run(whole.work, dataset=tiny_dataset("1" * 64)))


def test_changes_downstream_keep_what_is_upstream(whole: Run, tmp_path: Path) -> None:
    recipe = tiny_recipe()
    changed = replace(recipe, distillation=replace(recipe.distillation, logits=0.1))
    for path in whole.work.glob("*.pt"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    lines: list[str] = []
    with pytest.raises(CheckpointError, match=r"student\.pt"):
        run_stages(tiny_run(tmp_path, changed, report=lines.append))
    assert len(lines) == 3 and all("found 2 of 2" in line for line in lines)


def test_accuracy_is_the_share_of_right_answers() -> None:
    split = tiny_split(9, 0)

    def always_left(images: Tensor) -> Tensor:
        return torch.tensor([[1.0, 0.0, 0.0]]).expand(len(images), 3)

    assert accuracy(always_left, split, torch.device("cpu")) == pytest.approx(1 / 3)
