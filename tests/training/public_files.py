"""Small files in the formats of the public data sets, made of noise."""

import gzip
import hashlib
import io
import tarfile
import zipfile

import numpy as np
import numpy.typing as npt
from PIL import Image

from training.transfer import Original

Array = npt.NDArray[np.uint8]


def originals_of(files: dict[str, bytes]) -> tuple[Original, ...]:
    """The files as a data set would pin them."""
    return tuple(
        Original(name, hashlib.sha256(content).hexdigest(), len(content))
        for name, content in files.items()
    )


def idx(array: Array) -> bytes:
    """A gzipped IDX file."""
    sizes = np.array(array.shape, ">u4").tobytes()
    return gzip.compress(bytes((0, 0, 8, array.ndim)) + sizes + array.tobytes(), mtime=0)


def mnist_files(train: tuple[Array, Array], test: tuple[Array, Array]) -> dict[str, bytes]:
    """The four files of MNIST, from images (N, 28, 28) and labels (N,)."""
    return {
        "train-images-idx3-ubyte.gz": idx(train[0]),
        "train-labels-idx1-ubyte.gz": idx(train[1]),
        "t10k-images-idx3-ubyte.gz": idx(test[0]),
        "t10k-labels-idx1-ubyte.gz": idx(test[1]),
    }


def tar_gz(members: dict[str, bytes]) -> bytes:
    """A compressed archive with members of any name."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def cifar10_files(records: list[Array], extra: dict[str, bytes] | None = None) -> dict[str, bytes]:
    """The archive of CIFAR-10 from six batches of records (N, 3073), the last for testing."""
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    members = dict(extra or {})
    for name, batch in zip(names, records, strict=True):
        members[f"cifar-10-batches-bin/{name}.bin"] = batch.tobytes()
    return {"cifar-10-binary.tar.gz": tar_gz(members)}


def zipped(members: dict[str, bytes]) -> bytes:
    """A zip archive with members of any name."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def ppm(pixels: Array) -> bytes:
    """A colour picture as PPM."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PPM")
    return stream.getvalue()


def gtsrb_files(
    train: dict[str, tuple[int, Array]], test: dict[str, tuple[int, Array]]
) -> dict[str, bytes]:
    """The three archives of GTSRB, from names to class and picture with a border of 5 pixels."""
    archive: dict[str, bytes] = {}
    tables: dict[str, str] = {}
    for name, (label, pixels) in train.items():
        folder = f"GTSRB/Training/{label:05d}"
        archive[f"{folder}/{name}"] = ppm(pixels)
        table = f"{folder}/GT-{label:05d}.csv"
        tables[table] = tables.get(table, _HEADER) + _line(name, label, pixels)
    archive.update({name: table.encode() for name, table in tables.items()})
    truth = _HEADER + "".join(_line(name, label, pixels) for name, (label, pixels) in test.items())
    images = {f"GTSRB/Final_Test/Images/{name}": ppm(pixels) for name, (_, pixels) in test.items()}
    return {
        "GTSRB-Training_fixed.zip": zipped(archive),
        "GTSRB_Final_Test_Images.zip": zipped(images),
        "GTSRB_Final_Test_GT.zip": zipped({"GT-final_test.csv": truth.encode()}),
    }


_HEADER = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId\r\n"


def _line(name: str, label: int, pixels: Array) -> str:
    height, width = pixels.shape[:2]
    return f"{name};{width};{height};5;5;{width - 5};{height - 5};{label}\r\n"
