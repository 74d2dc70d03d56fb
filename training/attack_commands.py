"""What the commands `attack` and `recount` of `limbeck-train` do."""

import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import closing, contextmanager

import numpy as np

from training.address import address_of, api_key, permit
from training.card import wilson_interval
from training.client import Client, Patience, Tally
from training.commands import report
from training.data import load_split
from training.oracle import Oracle
from training.siege import LEVELS, Ball, Outcome, besiege
from training.spoils import Spoils, read_spoils, save_spoils
from training.targets import check_new

_NORMS = {"linf": "L-inf", "l2": "L2"}


def attack(arguments: Namespace) -> None:
    """Attack a running service and say what stands.

    Raises:
        ValueError: the attack cannot be made, or ended before its budget did.
    """
    if arguments.epsilon is not None:
        Ball.within(arguments.norm, arguments.epsilon)  # what cannot be is told before any request
    if arguments.queries < 2:
        raise ValueError("--queries must be at least 2")
    if arguments.out is not None:
        check_new(arguments.out)
    with _service(arguments) as oracle:
        ball = _ball(arguments, oracle)
        test = load_split(arguments.data, "test", oracle.spec, oracle.labels)
        # The choice of the robustness card with the same seed.
        chosen = test.sample(arguments.n, arguments.seed)
        oracle.client.close()  # reading the data outlasts the patience of a service
        _announce(oracle, ball, arguments, len(chosen))
        started = time.monotonic()
        outcome = besiege(
            oracle,
            chosen.images.numpy(),
            tuple(oracle.labels[label] for label in chosen.labels.tolist()),
            ball=ball,
            queries=arguments.queries,
            seed=arguments.seed,
            report=report,
        )
        for line in summary(outcome, oracle.client.tally, time.monotonic() - started):
            report(line)
    if arguments.out is not None:
        save_spoils(outcome, arguments.out)
        report(f"wrote {arguments.out}; limbeck-train recount asks again")
    if outcome.ended_early is not None:
        raise ValueError(f"ended early, what stands was not tried in full: {outcome.ended_early}")


def recount(arguments: Namespace) -> None:
    """Ask the service about saved images again and compare with what the attack found.

    Raises:
        ValueError: the answers do not agree.
    """
    spoils = read_spoils(arguments.file)
    with _service(arguments) as oracle:
        if spoils.sent.shape[1:] != oracle.spec.shape:
            raise ValueError(
                f"{arguments.file} has images of {spoils.sent.shape[1:]}, the service takes "
                f"{oracle.spec.shape}"
            )
        report(
            f"{oracle}; {len(spoils.labels)} images of {arguments.file}, {_largest_move(spoils)}"
        )
        right = np.zeros(len(spoils.labels), np.bool_)
        for rows, answers in oracle.ask(spoils.sent):
            labels = spoils.labels[rows]
            right[rows] = [a.label == label for a, label in zip(answers, labels, strict=True)]
    report(_share("robust accuracy", int(right.sum()), len(right)))
    changed = np.flatnonzero(right != spoils.robust).tolist()
    if changed:
        raise ValueError(
            f"the attack left {int(spoils.robust.sum())} of {len(right)}; the answers to images "
            f"{', '.join(map(str, changed[:20]))} changed"
        )
    report("agrees with the attack, image by image")


def summary(outcome: Outcome, tally: Tally, seconds: float) -> Iterator[str]:
    """The lines of a report."""
    n = len(outcome.labels)
    yield _share("clean accuracy", int(outcome.clean_right.sum()), n)
    yield _share("robust accuracy", int(outcome.robust.sum()), n)
    spent = outcome.queries[outcome.clean_right & ~outcome.robust]
    if len(spent):
        yield (
            f"queries until an image broke ({len(spent)} did): mean {spent.mean():,.1f}, median "
            f"{np.median(spent):,.0f}"
        )
    yield (
        f"{int(outcome.queries.sum()):,} queries in {tally.requests:,} requests "
        f"(repeated: {tally.repeated}, after {tally.waited_s:.1f} s) and {seconds:.1f} s: "
        f"{tally.requests / seconds:.1f} requests/s, {outcome.queries.sum() / seconds:.0f} images/s"
    )
    yield (
        "An attack by scores alone proves no robustness: who has the purifier has its gradients, "
        "and the card's end-to-end rows are the ones to plan with."
    )


@contextmanager
def _service(arguments: Namespace) -> Iterator[Oracle]:
    """The service that is asked for, if it may be attacked."""
    address = address_of(arguments.url)
    key = api_key(address)
    permit(address, yes=arguments.yes)
    if arguments.timeout <= 0 or arguments.minutes <= 0:
        raise ValueError("--timeout and --minutes must be more than 0")
    patience = Patience(timeout_s=arguments.timeout, total_s=60 * arguments.minutes)
    with closing(Client(address, key, patience)) as client:
        yield Oracle.of(client, arguments.model, purify=arguments.purify)


def _ball(arguments: Namespace, oracle: Oracle) -> Ball:
    """The ball that is asked for, or that of the bundle's robustness card.

    Raises:
        ValueError: neither tells its radius.
    """
    epsilon = arguments.epsilon
    if epsilon is None:
        epsilon = oracle.epsilon_of_card(arguments.norm)
    if epsilon is None:
        raise ValueError(
            f"{oracle.name}@{oracle.version} has no robustness card for {_NORMS[arguments.norm]}: "
            "how far may the attack go? --epsilon"
        )
    return Ball.within(arguments.norm, epsilon)


def _announce(oracle: Oracle, ball: Ball, arguments: Namespace, n: int) -> None:
    """What will be done, and how much of it at most."""
    radius = f"{_NORMS[ball.norm]} {ball.epsilon:.4g}"
    if ball.norm == "linf":
        radius += f" ({round(ball.epsilon * LEVELS)}/{LEVELS})"
    report(f"{oracle}; {n} random test images, seed {arguments.seed}")
    report(
        f"Square attack by scores, {radius}, in 8-bit PNG as they are sent; at most "
        f"{arguments.queries:,} queries an image, {n * arguments.queries:,} in all, "
        f"{arguments.minutes:g} minutes"
    )


def _share(what: str, right: int, n: int) -> str:
    """An accuracy with its interval."""
    low, high = wilson_interval(right, n)
    return f"{what}: {right / n:.1%} ({right} of {n}; 95 % Wilson interval {low:.1%} to {high:.1%})"


def _largest_move(spoils: Spoils) -> str:
    """How far the images lie from the clean ones."""
    moves = (spoils.sent.astype(np.float64) - spoils.clean) / LEVELS
    flat = moves.reshape(len(moves), -1)
    return (
        f"changed by at most L-inf {np.abs(flat).max():.4g} and "
        f"L2 {np.linalg.norm(flat, axis=1).max():.4g}"
    )
