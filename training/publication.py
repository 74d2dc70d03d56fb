"""Bundles written to disk: whole or absent, at every moment."""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path

from torch import Tensor, nn

from app.bundle import (
    CLASSIFIER_FILE,
    MANIFEST_FILE,
    PREPROCESS_FILE,
    PURIFIER_FILE,
    WEIGHTS_FILE,
    InputSpec,
    Manifest,
    Provenance,
    digest,
    read_manifest,
    read_verified,
)
from app.folders import is_version
from training.brought import BroughtClassifier
from training.export import Kind, check_parity, export_onnx
from training.files import write_whole
from training.weights import weights_of


def write_bundle(
    models_dir: Path,
    *,
    name: str,
    labels: Sequence[str],
    spec: InputSpec,
    networks: Mapping[str, nn.Module],
    images: Tensor,
    provenance: Provenance,
    shift_threshold_bits: float | None = None,
    version: int | None = None,
    extra_files: Mapping[str, bytes] | None = None,
    brought: BroughtClassifier | None = None,
) -> Path:
    """Export the networks, check them and write `models_dir/<name>/<version>/`.

    Args:
        models_dir: the folder of all bundles.
        name: of the bundle.
        labels: of the classifier's outputs, in order.
        spec: the images that the networks take.
        networks: `student` and `classifier` become the two graphs; all become the weights file.
            With a classifier that was brought there is no `classifier` among them.
        images: at least 32 real images (N, C, H, W) in [0, 1], for the parity check.
        provenance: where the networks come from.
        shift_threshold_bits: of the alarm, if it is known already.
        version: the next free one if not given.
        extra_files: further files of the bundle by name.
        brought: a classifier to serve as it is.

    Raises:
        ParityError: a graph does not compute what its network computes; nothing is written.
        FileExistsError: the version is there already.
    """
    folder = models_dir / name
    if version is not None and (folder / str(version)).exists():
        raise FileExistsError(f"{folder / str(version)} exists already")
    files = {**(extra_files or {}), **_network_files(networks, spec, images, brought)}
    folder.mkdir(parents=True, exist_ok=True)
    while True:
        chosen = version if version is not None else _next_version(folder)
        manifest = Manifest(
            name=name,
            version=chosen,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            labels=tuple(labels),
            input=spec,
            files={file: digest(content) for file, content in files.items()},
            classifier=None if brought is None else brought.spec,
            shift_threshold_bits=shift_threshold_bits,
            provenance=provenance,
        )
        target = folder / str(chosen)
        try:
            return _publish(target, files, manifest)
        except FileExistsError:
            # Another run took the number meanwhile; a number asked for is an error.
            if version is not None:
                raise


def _network_files(
    networks: Mapping[str, nn.Module],
    spec: InputSpec,
    images: Tensor,
    brought: BroughtClassifier | None,
) -> dict[str, bytes]:
    """Both graphs, checked against their networks, and the weights of all networks."""
    kinds: dict[Kind, tuple[str, str]] = {"purifier": ("student", PURIFIER_FILE)}
    files = {}
    if brought is None:
        kinds["classifier"] = ("classifier", CLASSIFIER_FILE)
    else:
        files[CLASSIFIER_FILE] = brought.content
        if brought.preprocess is not None:
            files[PREPROCESS_FILE] = brought.preprocess
    for kind, (key, file) in kinds.items():
        # A GPU's convolutions have fewer digits than the check asks for, and its tensors lie there.
        network = deepcopy(networks[key]).cpu()
        files[file] = export_onnx(network, kind, spec)
        check_parity(network, files[file], images)
    files[WEIGHTS_FILE] = weights_of(networks)
    return files


def replace_files(
    bundle: Path, files: Mapping[str, bytes], *, shift_threshold_bits: float | None
) -> Manifest:
    """Add or replace files of an existing bundle, with their digests in its manifest.

    A whole new folder is made beside the old one and takes its place, so that no reader finds
    files of one evaluation with the digests of another. Weights that were taken out of the bundle
    keep their digest: they can be put back.

    Args:
        bundle: the bundle's folder.
        files: new contents by name.
        shift_threshold_bits: the new threshold of the alarm.
    """
    bundle = bundle.resolve()
    old = read_manifest(bundle)
    kept = {file: expected for file, expected in old.files.items() if file not in files}
    taken_out = set() if (bundle / WEIGHTS_FILE).exists() else {WEIGHTS_FILE}
    contents = {file: read_verified(bundle, old, file) for file in kept.keys() - taken_out}
    contents.update(files)
    digests = {**kept, **{file: digest(content) for file, content in contents.items()}}
    manifest = Manifest.model_validate(
        {
            **old.model_dump(),
            "files": dict(sorted(digests.items())),
            "shift_threshold_bits": shift_threshold_bits,
        }
    )
    fresh = _write(bundle.parent, contents, manifest)
    retired = fresh.with_name(fresh.name.replace(".partial-", ".retired-"))
    bundle.rename(retired)
    try:
        fresh.rename(bundle)
    except OSError:
        retired.rename(bundle)
        raise
    shutil.rmtree(retired)
    return manifest


def _next_version(folder: Path) -> int:
    """One more than the highest version there."""
    numbers = [int(path.name) for path in folder.iterdir() if is_version(path.name)]
    return max(numbers, default=0) + 1


def _publish(target: Path, files: Mapping[str, bytes], manifest: Manifest) -> Path:
    """Write a new bundle and rename it into place."""
    if target.exists():
        raise FileExistsError(f"{target} exists already")
    fresh = _write(target.parent, files, manifest)
    try:
        # Fails if a bundle appeared there meanwhile: a folder never replaces one with files in it.
        fresh.rename(target)
    except OSError as error:
        shutil.rmtree(fresh)
        raise FileExistsError(f"{target} exists already") from error
    return target


def _write(parent: Path, files: Mapping[str, bytes], manifest: Manifest) -> Path:
    """A new hidden folder with the files and the manifest, on disk when this returns."""
    fresh = Path(tempfile.mkdtemp(prefix=".partial-", dir=parent))
    try:
        document = manifest.model_dump_json(indent=2).encode() + b"\n"
        for name, content in {**files, MANIFEST_FILE: document}.items():
            write_whole(fresh / name, content)
        # mkdtemp lets only its owner in; a bundle is for whoever serves it.
        with suppress(OSError):
            fresh.chmod(0o755)
    except BaseException:
        shutil.rmtree(fresh)
        raise
    return fresh
