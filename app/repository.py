"""Bundles that come and go while the service runs: loaded, unloaded, followed on disk."""

import asyncio
import logging
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from app.bundle import (
    CARD_FILE,
    CLASSIFIER_FILE,
    MANIFEST_FILE,
    NAME_PATTERN,
    PREPROCESS_FILE,
    PURIFIER_FILE,
    BundleError,
    digest,
    read_verified,
)
from app.catalog import Failure, LoadOptions, Model, load_or_refuse
from app.errors import BundleRefused, UnknownModel
from app.folders import find_bundles, find_versions
from app.service import Service
from app.sessions import DeviceError
from app.watch import FolderWatch

logger = logging.getLogger(__name__)

# Of a bundle's files those that loading reads; the others may be missing.
_LOADED = {PURIFIER_FILE, CLASSIFIER_FILE, PREPROCESS_FILE, CARD_FILE}


@dataclass(frozen=True, slots=True)
class Entry:
    """A version on disk or in memory, and whether it is served."""

    name: str
    version: str
    ready: bool
    reason: str


class Repository:
    """The folder of bundles, and what the service serves of it.

    Changes happen one after the other. Each is verified, loaded and warmed up on a thread apart,
    then the service swaps its catalog in one step.

    Args:
        service: whose catalog is changed.
        models_dir: the folder.
        options: how bundles are loaded.
        watch: what tells of changes in the folder; None: nobody does.
        watch_s: seconds between two looks.
    """

    def __init__(
        self,
        service: Service,
        models_dir: Path,
        options: LoadOptions,
        watch: FolderWatch | None = None,
        watch_s: float = 1.0,
    ) -> None:
        self._service = service
        self._models_dir = models_dir
        self._options = options
        self._watch = watch
        self._watch_s = watch_s
        self._changing = asyncio.Lock()
        # Always the same thread: glibc gives each a pool of its own, and keeps a part of it.
        self._loader = ThreadPoolExecutor(1, "models")
        self._failures: dict[str, list[Failure]] = {}
        for failure in service.catalog.failures:
            self._failures.setdefault(failure.name, []).append(failure)
        self._following: asyncio.Task[None] | None = None

    @property
    def failures(self) -> list[Failure]:
        """What was refused and is still there, by name."""
        return [failure for name in sorted(self._failures) for failure in self._failures[name]]

    async def load(self, name: str) -> None:
        """Serve every version of the bundle as it is on disk; those that have not changed serve on.

        Raises:
            UnknownModel: there is no such bundle.
            BundleRefused: a version is not whole, or the folder cannot be read. The others are
                served, and in its place whatever was served before.
        """
        _check_name(name)
        async with self._changing:
            try:
                found = await self._load(name)
            except OSError as error:
                raise BundleRefused(f"{name}: cannot be read: {error.strerror}") from error
            if not found:
                raise UnknownModel(f"There is no bundle {name!r} on disk.")
            failures = self._failures.get(name)
        if failures:
            raise BundleRefused("; ".join(failure.reason for failure in failures))

    async def unload(self, name: str) -> None:
        """Serve no version of the bundle any more; what was accepted is still answered.

        Raises:
            UnknownModel: none is served.
        """
        _check_name(name)
        async with self._changing:
            if name not in self._service.catalog.bundles:
                raise UnknownModel(f"There is no model {name!r}; see /models.")
            self._service.swap(self._service.catalog.changed(name, []))

    async def index(self) -> list[Entry]:
        """Every version on disk or in memory."""
        folders = await asyncio.to_thread(find_bundles, self._models_dir)
        found = {(folder.parent.name, folder.name) for folder in folders}
        served = {(m.manifest.name, str(m.manifest.version)) for m in self._service.catalog.models}
        reasons = {(failure.name, failure.version): failure.reason for failure in self.failures}
        return [
            Entry(
                name,
                version,
                (name, version) in served,
                reasons.get((name, version), "" if (name, version) in served else "not loaded"),
            )
            for name, version in sorted(found | served, key=lambda key: (key[0], int(key[1])))
        ]

    def start(self) -> None:
        """Begin to follow the folder, if it is watched."""
        if self._watch is not None:
            self._following = asyncio.create_task(self._follow(self._watch))

    def close(self) -> None:
        """Follow it no more."""
        if self._following is not None:
            self._following.cancel()
        self._loader.shutdown(wait=False, cancel_futures=True)

    async def _follow(self, watch: FolderWatch) -> None:
        """Load what is new or changed, unload what is gone, for ever."""
        trouble = ""
        while True:
            await asyncio.sleep(self._watch_s)
            try:
                for name in sorted(await asyncio.to_thread(watch.look)):
                    async with self._changing:
                        await self._load(name)
                trouble = ""
            except Exception as error:
                # Whatever it is, it must not end the watch; said once, not at every look.
                if str(error) != trouble:
                    logger.exception("%s cannot be followed", self._models_dir)
                trouble = str(error)

    async def _load(self, name: str) -> bool:
        """Bring what is served in line with the disk; whether the disk has anything of that name.

        Cancelled in the midst it has changed nothing.
        """
        catalog = self._service.catalog
        folders, models, failures = await asyncio.get_running_loop().run_in_executor(
            self._loader, self._read, name, catalog.bundles.get(name, {})
        )
        self._failures.pop(name, None)
        if failures:
            self._failures[name] = failures
        for failure in failures:
            self._service.metrics.model_loads.labels(name, "refused").inc()
            logger.error("refused %s@%s: %s", name, failure.version, failure.reason)
        loaded = set(models).difference(catalog.models)
        self._service.metrics.model_loads.labels(name, "loaded").inc(len(loaded))
        if set(models) != set(catalog.bundles.get(name, {}).values()):
            self._service.swap(catalog.changed(name, models))
        return bool(folders)

    def _read(
        self, name: str, served: Mapping[int, Model]
    ) -> tuple[Sequence[Path], list[Model], list[Failure]]:
        """The bundle's folders, the models to serve, and what was refused. Runs on a thread."""
        folders = find_versions(self._models_dir / name)
        if not folders and served and not find_bundles(self._models_dir):
            # A volume that is not mounted rather than an order to unload.
            logger.warning("%s holds no bundle: %s serves on", self._models_dir, name)
            return folders, list(served.values()), []
        models, failures = [], []
        for folder in folders:
            old = served.get(int(folder.name))
            try:
                if old is None or not _is_of(old, folder):
                    models.append(load_or_refuse(folder, self._options))
                    continue
            except (BundleError, DeviceError) as error:
                failures.append(Failure.of(folder, error))
            if old is not None and old not in models:
                models.append(old)
        return folders, models, failures


def _is_of(model: Model, folder: Path) -> bool:
    """Whether the folder holds what was loaded.

    Raises:
        BundleError: by its manifest it does, by its files it does not.
    """
    try:
        if digest((folder / MANIFEST_FILE).read_bytes()).sha256 != model.sha256:
            return False
    except OSError:
        return False  # loading it again says what is wrong
    for name in sorted(model.manifest.files.keys() & _LOADED):
        read_verified(folder, model.manifest, name)
    return True


def _check_name(name: str) -> None:
    """Refuse what could not be a bundle's name before it becomes part of a path."""
    if not re.fullmatch(NAME_PATTERN, name):
        raise UnknownModel(f"There is no model {name[:80]!r}; see /models.")
