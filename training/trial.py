"""What is evaluated, on which images and how hard."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from training.adversary import Attacked, Progress
from training.attacks import Norm
from training.autoattack import QUERIES, VERSION
from training.card import Row, Sees, accuracy_row
from training.folding import channels_last, fold_batch_norm
from training.state import Arrays, State, digest_of

# Of the attacks in training.attacks.
OWN_VERSION = f"training.attacks, torch {torch.__version__}"


@dataclass(frozen=True)
class Protocol:
    """How hard the attacks try; the defaults are what a published card uses.

    Attributes:
        epsilon: headline radius, in [0, 1] pixel units.
        norm: of the ball.
        n: attacked test images.
        seed: of the choice of images and of every attack.
        quick: shortened attacks, for trial runs.
        unseen_l2: radius of the L2 attacks that nothing was trained against; 0: none are run.
        step_counts: PGD's, in the table of more and more steps.
    """

    epsilon: float
    norm: Norm = "linf"
    n: int = 1000
    seed: int = 0
    quick: bool = False
    pgd_steps: int = 100
    pgd_restarts: int = 5
    queries: int = QUERIES
    ablation_n: int = 500
    sweep_n: int = 250
    brief_steps: int = 40
    batch_size: int = 250
    unseen_l2: float = 0.0
    unseen_n: int = 500
    step_counts: tuple[int, ...] = (5, 10, 20, 40, 100)
    steps_n: int = 250
    corruptions_n: int = 1000

    @classmethod
    def shortened(
        cls,
        epsilon: float,
        norm: Norm = "linf",
        n: int = 50,
        seed: int = 0,
        unseen_l2: float = 0.0,
    ) -> "Protocol":
        """A protocol that takes seconds and measures nothing."""
        return cls(
            epsilon=epsilon,
            norm=norm,
            n=n,
            seed=seed,
            quick=True,
            pgd_steps=20,
            pgd_restarts=1,
            queries=100,
            ablation_n=min(n, 30),
            sweep_n=min(n, 30),
            brief_steps=20,
            unseen_l2=unseen_l2,
            unseen_n=min(n, 30),
            step_counts=(5, 20),
            steps_n=min(n, 30),
            corruptions_n=min(n, 30),
        )


@dataclass
class Trial:
    """Frozen, folded networks with the images they are measured on.

    Args:
        networks: by name: `classifier`, `student`, `normal_teacher` and, where there, more.
        images: the chosen test images (n, C, H, W), float32 in [0, 1].
        labels: (n,).
        protocol: how hard to attack.
        state: where results are kept.
        progress: takes one line at a time.
    """

    networks: Mapping[str, nn.Module]
    images: Tensor
    labels: Tensor
    protocol: Protocol
    state: State
    progress: Progress = print
    warnings: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Fold the networks and bind the kept results to the images and how they are attacked."""
        # Channels last makes a pass of these networks a fifth faster on a CPU.
        self.networks = {
            name: channels_last(fold_batch_norm(network), self.images.device)
            for name, network in self.networks.items()
        }
        key = digest_of(self.images, self.labels, repr(self.protocol), torch.__version__, VERSION)
        self.state = self.state.below(f"trial-{key}")

    @property
    def classes(self) -> int:
        """Number of labels K."""
        with torch.no_grad():
            return int(self.networks["classifier"](self.images[:1]).shape[1])

    def pipeline(self, purifier: str = "student", classifier: str = "classifier") -> nn.Sequential:
        """Purifier and classifier as one model, in eval mode."""
        return nn.Sequential(self.networks[purifier], self.networks[classifier]).eval()

    def first(self, n: int) -> tuple[Tensor, Tensor]:
        """The first of the chosen images, which are in random order, with their labels."""
        return self.images[:n], self.labels[:n]

    def clean_row(self, key: str, title: str, correct: Tensor, defence: str) -> Row:
        """A row without attack."""
        return accuracy_row(f"{key}_clean", title, correct, defence=defence)

    def row(
        self,
        key: str,
        title: str,
        correct: Tensor,
        *,
        defence: str,
        sees: Sees,
        attack: str,
        versions: str = OWN_VERSION,
    ) -> Row:
        """A row of an attack with the protocol's ball and seed."""
        return accuracy_row(
            key,
            title,
            correct,
            defence=defence,
            sees=sees,
            attack=attack,
            versions=versions,
            norm=self.protocol.norm,
            epsilon=self.protocol.epsilon,
            seed=self.protocol.seed,
        )

    def attack(self, name: str, run: Callable[[], Attacked], *models: nn.Module) -> Attacked:
        """The attack's result, run only if it is not kept yet.

        Args:
            name: of the attack, and of what it is on.
            run: the attack.
            models: all that the result depends on, so that a bundle that gains or changes another
                network keeps it.
        """
        state = self.state.below(digest_of(*models))
        if not state.has(name):
            self.progress(f"{name} ...")

        def arrays() -> Arrays:
            attacked = run()
            return {
                "images": attacked.images.cpu().numpy(),
                "robust": attacked.robust.cpu().numpy(),
                "warnings": np.array(attacked.warnings, dtype=np.str_),
            }

        found = state.kept(name, arrays)
        attacked = Attacked(
            torch.from_numpy(found["images"]).to(self.images.device),
            torch.from_numpy(found["robust"]).to(self.images.device),
            tuple(str(message) for message in found["warnings"]),
        )
        self.warnings.update(f"{name}: {message}" for message in attacked.warnings)
        self.progress(f"{name}: {float(attacked.robust.float().mean()):.1%} stand")
        return attacked
