"""The one thing of an EXIF block that matters: which way up the image is.

Read here with a few bounded steps. Pillow reads every entry there is and copies what it points to,
which lets a block of a megabyte claim the memory of a thousand.
"""

import struct

_ORIENTATION_TAG = 0x0112
_SHORT = 3
_BYTE_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}

# TIFF sorts its entries, and this one has a low number.
_MAX_ENTRIES = 256


def orientation(block: bytes) -> int:
    """The EXIF orientation, 1 to 8; 1 where the block names none or cannot be read.

    Metadata is no reason to refuse a picture; viewers ignore such a block as well.
    """
    tiff = memoryview(block)[6:] if block.startswith(b"Exif\0\0") else memoryview(block)
    order = _BYTE_ORDERS.get(bytes(tiff[:4]))
    if order is None:
        return 1
    try:
        (directory,) = struct.unpack_from(f"{order}I", tiff, 4)
        (entries,) = struct.unpack_from(f"{order}H", tiff, directory)
        for index in range(min(entries, _MAX_ENTRIES)):
            entry = struct.unpack_from(f"{order}HHIH", tiff, directory + 2 + 12 * index)
            if entry[:3] == (_ORIENTATION_TAG, _SHORT, 1):
                value = int(entry[3])
                return value if 1 <= value <= 8 else 1
    except struct.error:
        return 1
    return 1
