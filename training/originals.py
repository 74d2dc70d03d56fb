"""What is inside the files of the public data sets.

File names inside an archive never become paths here: pictures are numbered or renamed by rule.
"""

import csv
import gzip
import io
import re
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

CIFAR10_CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
_CIFAR10_RECORD = 1 + 3 * 32 * 32
_GTSRB_SIDE = 32


@dataclass(frozen=True)
class Picture:
    """One picture of a public data set and where it belongs.

    Shape:
        pixels: (H, W) or (H, W, 3), uint8.
    """

    split: str
    label: str
    stem: str
    pixels: npt.NDArray[np.uint8]


def read_mnist(folder: Path) -> Iterator[Picture]:
    """The digits of the four IDX files.

    Raises:
        ValueError: a file is not what its name says.
    """
    for split, prefix in (("train", "train"), ("test", "t10k")):
        images = _read_idx(folder / f"{prefix}-images-idx3-ubyte.gz", 3)  # (N, 28, 28)
        labels = _read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz", 1)  # (N,)
        if len(images) != len(labels):
            raise ValueError(f"{folder}: {len(images)} {split} images, {len(labels)} labels")
        for index, (pixels, label) in enumerate(zip(images, labels, strict=True)):
            yield Picture(split, str(label), f"{index:05d}", pixels)


def read_cifar10(folder: Path) -> Iterator[Picture]:
    """The pictures of the binary version, which, unlike the Python version, is no pickle.

    Raises:
        ValueError: a batch is missing or of another length.
    """
    batches = [("train", f"data_batch_{number}") for number in range(1, 6)]
    path = folder / "cifar-10-binary.tar.gz"
    counts = {"train": 0, "test": 0}
    with tarfile.open(path, "r:gz") as archive:
        for split, batch in [*batches, ("test", "test_batch")]:
            records = _cifar10_records(archive, f"cifar-10-batches-bin/{batch}.bin", path)
            for record in records:
                pixels = record[1:].reshape(3, 32, 32).transpose(1, 2, 0)  # (32, 32, 3)
                label = CIFAR10_CLASSES[record[0]]
                yield Picture(split, label, f"{counts[split]:05d}", np.ascontiguousarray(pixels))
                counts[split] += 1


def read_gtsrb(folder: Path) -> Iterator[Picture]:
    """Traffic signs, cut out along their region of interest and scaled to 32x32.

    Training frames keep `<track>_<frame>`, so that a track is not torn apart later.

    Raises:
        ValueError: a table has a name or a number that cannot be.
    """
    with zipfile.ZipFile(folder / "GTSRB-Training_fixed.zip") as archive:
        tables = [name for name in archive.namelist() if re.search(r"/GT-\d{5}\.csv$", name)]
        for table in sorted(tables):
            for row in _rows(archive.read(table)):
                content = archive.read(f"{table.rpartition('/')[0]}/{row['Filename']}")
                yield _sign("train", row, content)
    with zipfile.ZipFile(folder / "GTSRB_Final_Test_GT.zip") as archive:
        rows = _rows(archive.read("GT-final_test.csv"))
    with zipfile.ZipFile(folder / "GTSRB_Final_Test_Images.zip") as archive:
        for row in rows:
            yield _sign("test", row, archive.read(f"GTSRB/Final_Test/Images/{row['Filename']}"))


def _read_idx(path: Path, dimensions: int) -> npt.NDArray[np.uint8]:
    """The array of a gzipped IDX file of bytes."""
    with gzip.open(path) as file:
        header = file.read(4 + 4 * dimensions)
        if header[:4] != bytes((0, 0, 8, dimensions)) or len(header) != 4 + 4 * dimensions:
            raise ValueError(f"{path}: is not an IDX file of {dimensions} dimension(s)")
        sizes = np.frombuffer(header[4:], ">u4").astype(int)
        content = file.read(int(sizes.prod()) + 1)
    if len(content) != sizes.prod():
        raise ValueError(f"{path}: does not have the {sizes.prod()} bytes that its header tells")
    return np.frombuffer(content, np.uint8).reshape(sizes)


def _cifar10_records(archive: tarfile.TarFile, member: str, path: Path) -> npt.NDArray[np.uint8]:
    """Label and pixels of one batch, (N, 3073)."""
    try:
        stream = archive.extractfile(member)
    except KeyError:
        stream = None
    content = stream.read() if stream is not None else b""
    if not content or len(content) % _CIFAR10_RECORD:
        raise ValueError(f"{path}: {member} is missing or is no whole number of records")
    records = np.frombuffer(content, np.uint8).reshape(-1, _CIFAR10_RECORD)
    if records[:, 0].max() >= len(CIFAR10_CLASSES):
        raise ValueError(f"{path}: {member} has a label above {len(CIFAR10_CLASSES) - 1}")
    return records


def _rows(table: bytes) -> list[dict[str, str]]:
    """The lines of a semicolon-separated table with a header."""
    return list(csv.DictReader(io.StringIO(table.decode()), delimiter=";"))


def _sign(split: str, row: dict[str, str], content: bytes) -> Picture:
    """One sign of the table's row."""
    name = re.fullmatch(r"(\d+(?:_\d+)?)\.ppm", row["Filename"])
    label = int(row["ClassId"])
    if not name or not 0 <= label <= 42:
        raise ValueError(f"the GTSRB table has an impossible row: {row}")
    left, top, right, bottom = (int(row[f"Roi.{corner}"]) for corner in ("X1", "Y1", "X2", "Y2"))
    with Image.open(io.BytesIO(content), formats=("PPM",)) as image:
        sign = image.convert("RGB").crop((left, top, right, bottom))
    sign = sign.resize((_GTSRB_SIDE, _GTSRB_SIDE), Image.Resampling.BICUBIC)
    return Picture(split, f"{label:02d}", name[1], np.asarray(sign))
