"""The bundles that are served: found, verified, loaded, warmed up, and looked up by name."""

import logging
import time
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from app.bundle import (
    CARD_FILE,
    MANIFEST_FILE,
    BundleError,
    Manifest,
    parse_json,
    read_manifest_and_digest,
    read_verified,
)
from app.engine import Engine, load_engine, warm_up
from app.errors import UnknownModel
from app.folders import find_bundles, is_version
from app.sessions import Device, DeviceError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """One version of a bundle, ready to run.

    Attributes:
        sha256: of its manifest, which holds the digests of everything else.
        card: the robustness card, None if the bundle has none.
    """

    manifest: Manifest
    sha256: str
    card: dict[str, Any] | None
    engine: Engine

    @property
    def key(self) -> str:
        """`name@version`."""
        return f"{self.manifest.name}@{self.manifest.version}"


@dataclass(frozen=True, slots=True)
class Failure:
    """A version on disk that was refused.

    Attributes:
        version: the name of its folder.
        reason: which file, and why.
        time: UTC, ISO 8601.
    """

    name: str
    version: str
    reason: str
    time: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="milliseconds"))

    @classmethod
    def of(cls, folder: Path, error: Exception) -> Self:
        """That of the version in a folder; where it lies is not the business of whoever asks."""
        reason = str(error).replace(f"{folder.parent.parent}/", "")
        return cls(folder.parent.name, folder.name, reason)


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How bundles are loaded.

    Attributes:
        threads: of one inference on the CPU.
        max_batch_size: the largest batch to warm up.
        check: raises a BundleError for a folder that is not to be trusted; None trusts them all.
    """

    device: Device
    threads: int
    max_batch_size: int
    check: Callable[[Path], None] | None = None


class Catalog:
    """Loaded models by name and version; the highest version stands for the name.

    It never changes: whoever holds one sees the same models throughout.

    Args:
        models: at least one, unless the default is given.
        default: the bundle used when none is named, loaded or not; None: the first by name.
        failures: what was refused when they were loaded.
    """

    def __init__(
        self,
        models: Sequence[Model],
        default: str | None = None,
        failures: Sequence[Failure] = (),
    ) -> None:
        self.failures = failures
        self._bundles: dict[str, dict[int, Model]] = {}
        for model in sorted(models, key=lambda m: (m.manifest.name, m.manifest.version)):
            self._bundles.setdefault(model.manifest.name, {})[model.manifest.version] = model
        self.default = default or next(iter(self._bundles))

    @property
    def bundles(self) -> Mapping[str, Mapping[int, Model]]:
        """Name -> version -> model, both ascending."""
        return self._bundles

    @property
    def models(self) -> list[Model]:
        """All of them."""
        return [model for versions in self._bundles.values() for model in versions.values()]

    def changed(self, name: str, models: Sequence[Model]) -> "Catalog":
        """This catalog with these versions of a bundle in place of those it has; none: without it.

        The default stays what it is, so that no request changes its meaning by what is loaded: of a
        default that is not loaded there is no model.
        """
        others = [model for model in self.models if model.manifest.name != name]
        return Catalog([*others, *models], self.default)

    def find(self, selector: str | None) -> Model:
        """The model that `name`, `name@version` or nothing at all selects.

        Raises:
            UnknownModel: there is none.
        """
        name, at, version = (selector or self.default).partition("@")
        versions = self._bundles.get(name)
        if versions is None:
            raise UnknownModel(f"There is no model {name[:80]!r}; see /models.")
        if not at:
            return versions[max(versions)]
        numeric = is_version(version) and len(version) < 10
        found = versions.get(int(version)) if numeric else None
        if found is None:
            raise UnknownModel(f"There is no version {version[:20]!r} of {name}; see /models.")
        return found


def load_model(folder: Path, options: LoadOptions) -> Model:
    """The bundle in `folder`, verified, loaded and warmed up.

    Raises:
        BundleError: it is not whole or not signed; the message names the file and the reason.
        DeviceError: the device cannot be used.
    """
    started = time.perf_counter()
    if options.check:
        options.check(folder)
    manifest, manifest_digest = read_manifest_and_digest(folder)
    if (manifest.name, str(manifest.version)) != (folder.parent.name, folder.name):
        raise BundleError(
            f"{folder / MANIFEST_FILE}: is of {manifest.name} version {manifest.version}, "
            "which is not the folder's name"
        )
    card = None
    if CARD_FILE in manifest.files:
        card = parse_json(folder / CARD_FILE, read_verified(folder, manifest, CARD_FILE))
        if not isinstance(card, dict):
            raise BundleError(f"{folder / CARD_FILE}: holds no JSON object")
    engine = load_engine(folder, manifest, options.device, options.threads)
    warm_up(engine, folder, manifest, options.max_batch_size)
    model = Model(manifest, manifest_digest.sha256, card, engine)
    logger.info(
        "loaded %s on %s in %.2f s", model.key, engine.provider, time.perf_counter() - started
    )
    return model


def load_or_refuse(folder: Path, options: LoadOptions) -> Model:
    """`load_model`, for a version that others can stand in for: no failure of it is unexpected.

    Raises:
        BundleError: it is not whole, or cannot be loaded for a reason that the log has.
        DeviceError: the device cannot be used.
    """
    try:
        return load_model(folder, options)
    except (BundleError, DeviceError):
        raise
    except Exception as error:
        logger.exception("%s cannot be loaded", folder)
        raise BundleError(f"{folder}: cannot be loaded; see the log") from error


def load_catalog(
    models_dir: Path,
    default: str | None,
    options: LoadOptions,
    versions: Container[str] | None = None,
) -> Catalog:
    """Every bundle below `models_dir`, as `<name>/<version>/`.

    A version that is not whole is left out, and among the catalog's failures, if another version of
    its bundle is whole: what is served does not depend on whether a version came before the start.

    Args:
        models_dir: the folder.
        default: the bundle used when none is named; None: the first by name.
        options: how they are loaded.
        versions: `name/version` of those that are to be loaded; None: all.

    Raises:
        BundleError: the folder holds none, no version of one is whole, or the default is not there.
        DeviceError: the device cannot be used.
    """
    if not models_dir.is_dir():
        raise BundleError(f"{models_dir}: is no folder (LIMBECK_MODELS_DIR)")
    folders = [
        folder
        for folder in find_bundles(models_dir)
        if versions is None or f"{folder.parent.name}/{folder.name}" in versions
    ]
    if not folders:
        known = "" if versions is None else " that was there at the start"
        raise BundleError(f"{models_dir}: holds no bundle <name>/<version>/{MANIFEST_FILE}{known}")
    models: list[Model] = []
    refused: dict[Path, BundleError | DeviceError] = {}
    for folder in folders:
        try:
            models.append(load_or_refuse(folder, options))
        except (BundleError, DeviceError) as error:
            refused[folder] = error
    served = {model.manifest.name for model in models}
    for folder, reason in refused.items():
        if folder.parent.name not in served:
            raise reason
    failures = [Failure.of(folder, reason) for folder, reason in refused.items()]
    for failure in failures:
        logger.error("refused %s@%s: %s", failure.name, failure.version, failure.reason)
    catalog = Catalog(models, default, failures)
    if catalog.default not in catalog.bundles:
        names = ", ".join(catalog.bundles)
        raise BundleError(
            f"{models_dir}: holds no bundle {catalog.default!r} (LIMBECK_DEFAULT_MODEL), "
            f"only {names}"
        )
    return catalog
