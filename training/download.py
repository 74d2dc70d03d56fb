"""The public data sets, fetched from where they are kept and unpacked to folders of PNG files."""

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from training.originals import Picture, read_cifar10, read_gtsrb, read_mnist
from training.transfer import DownloadError, Original, Report, Unreachable, transfer

_SECONDS_BETWEEN_LINES = 5.0


@dataclass(frozen=True)
class PublicData:
    """Where a public data set is kept, what its files are, and how to read them."""

    name: str
    mirrors: tuple[str, ...]
    originals: tuple[Original, ...]
    read: Callable[[Path], Iterator[Picture]]
    pictures: int


PUBLIC: Mapping[str, PublicData] = {
    data.name: data
    for data in (
        # LeCun, Cortes, Burges 1998. Digests: TensorFlow Datasets, url_checksums/mnist.
        PublicData(
            name="mnist",
            mirrors=(
                "https://ossci-datasets.s3.amazonaws.com/mnist",
                "https://storage.googleapis.com/cvdf-datasets/mnist",
            ),
            originals=(
                Original(
                    "train-images-idx3-ubyte.gz",
                    "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
                    9_912_422,
                ),
                Original(
                    "train-labels-idx1-ubyte.gz",
                    "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
                    28_881,
                ),
                Original(
                    "t10k-images-idx3-ubyte.gz",
                    "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
                    1_648_877,
                ),
                Original(
                    "t10k-labels-idx1-ubyte.gz",
                    "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
                    4_542,
                ),
            ),
            read=read_mnist,
            pictures=70_000,
        ),
        # Krizhevsky 2009. Digest: TensorFlow Datasets, url_checksums/cifar10.
        PublicData(
            name="cifar10",
            mirrors=("https://www.cs.toronto.edu/~kriz",),
            originals=(
                Original(
                    "cifar-10-binary.tar.gz",
                    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
                    170_052_171,
                ),
            ),
            read=read_cifar10,
            pictures=60_000,
        ),
        # Stallkamp et al. 2012. Digests: torchvision, prototype/datasets/gtsrb. The training
        # archive is that of the 2011 competition, the only one with a published SHA-256.
        PublicData(
            name="gtsrb",
            mirrors=("https://sid.erda.dk/public/archives/daaeac0d7ce1152aea9b61d9f1e19370",),
            originals=(
                Original(
                    "GTSRB-Training_fixed.zip",
                    "df4144942083645bd60b594de348aa6930126c3e0e5de09e39611630abf8455a",
                    187_490_228,
                ),
                Original(
                    "GTSRB_Final_Test_Images.zip",
                    "48ba6fab7e877eb64eaf8de99035b0aaecfbc279bee23e35deca4ac1d0a837fa",
                    88_978_620,
                ),
                Original(
                    "GTSRB_Final_Test_GT.zip",
                    "f94e5a7614d75845c74c04ddb26b8796b9e483f43541dd95dd5b726504e16d6d",
                    99_620,
                ),
            ),
            read=read_gtsrb,
            pictures=39_270,
        ),
    )
}


def fetch(
    name: str, out: Path, *, mirror: str | None = None, report: Callable[[str], None] = print
) -> Path:
    """Fetch a public data set and unpack it to `<out>/<name>/train|test/<class>/*.png`.

    Args:
        name: of the data set, one of `PUBLIC`.
        out: the folder of all data sets.
        mirror: address of a folder with the original files, instead of the usual ones.
        report: takes lines of progress.

    Returns:
        `<out>/<name>`.

    Raises:
        DownloadError: the name is unknown, or the files cannot be fetched or written.
    """
    if name not in PUBLIC:
        raise DownloadError(
            f"no public data set {name!r}; known are {', '.join(sorted(PUBLIC))}. Any other is "
            "given as --data: a folder train/<class>/*, test/<class>/* of images"
        )
    return fetch_data(PUBLIC[name], out, mirror=mirror, report=report)


def fetch_data(data: PublicData, out: Path, *, mirror: str | None, report: Report) -> Path:
    """Fetch and unpack a data set; its folder appears whole or not at all.

    Raises:
        DownloadError: as `fetch`.
    """
    target = out / data.name
    if target.exists():
        report(f"{target}: already here; remove it to fetch it again")
        return target
    originals = out / f".{data.name}-originals"
    for original in data.originals:
        _transfer(original, (mirror,) if mirror else data.mirrors, originals, report)
    fresh = out / f".{data.name}-unpacking"
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        _unpack(data, originals, fresh, report)
    except OSError as error:
        raise DownloadError(f"{fresh}: cannot be written: {error.strerror or error}") from error
    fresh.replace(target)
    shutil.rmtree(originals)
    report(f"{target}: {data.pictures:,} images")
    return target


def _transfer(original: Original, mirrors: tuple[str, ...], folder: Path, report: Report) -> None:
    """Fetch a file from the first mirror that has it."""
    problems = []
    for base_url in mirrors:
        try:
            transfer(original, base_url, folder, report)
            return
        except Unreachable as error:
            problems.append(str(error))
    raise DownloadError("\n".join(problems))


def _unpack(data: PublicData, originals: Path, fresh: Path, report: Report) -> None:
    """Write all pictures as PNG files."""
    shown = time.monotonic()
    count = 0
    for picture in data.read(originals):
        folder = fresh / picture.split / picture.label
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture.pixels).save(folder / f"{picture.stem}.png")
        count += 1
        if time.monotonic() - shown >= _SECONDS_BETWEEN_LINES:
            shown = time.monotonic()
            report(f"{data.name}: {count:,} of {data.pictures:,} images unpacked")
    if count != data.pictures:
        raise DownloadError(f"{data.name}: found {count:,} images, expected {data.pictures:,}")
