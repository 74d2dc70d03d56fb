"""Sockets that listen."""

import contextlib
import ctypes
import socket
import struct
import sys
from collections.abc import Iterator

from app.settings import Settings

# From <linux/filter.h>: load a byte, jump if any of these bits is set, return.
_LOAD_BYTE, _JUMP_IF_SET, _RETURN = 0x30, 0x45, 0x06
_SO_ATTACH_FILTER = 26
_TCP_FLAGS, _SYN = 13, 0x02


def bind(host: str, port: int) -> socket.socket:
    """A socket that holds the address, not listening yet."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        error.filename = f"{host}:{port}"
        raise
    return sock


@contextlib.contextmanager
def bound(settings: Settings) -> Iterator[list[socket.socket]]:
    """The sockets to serve on: the main one, and the admin port's if there is one.

    Raises:
        OSError: an address cannot be had; `filename` names it.
    """
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(bind(settings.host, settings.port))]
        if settings.admin_port is not None:
            sockets.append(stack.enter_context(bind(settings.admin_host, settings.admin_port)))
        yield sockets


def refuse_newcomers(sock: socket.socket) -> None:
    """Let the system connect nobody more, and keep those whom it has connected already.

    Closing a listening socket resets the connections that wait to be accepted, with the requests
    they may have sent. So nobody new is let in first: the packets that ask for a connection are
    dropped. Whoever sent one asks again after a second, and meets a closed port, or a successor.

    Linux alone can do that; elsewhere nothing happens.
    """
    if sys.platform != "linux":
        return
    program = b"".join(
        struct.pack("=HBBI", *instruction)
        for instruction in (
            (_LOAD_BYTE, 0, 0, _TCP_FLAGS),
            (_JUMP_IF_SET, 0, 1, _SYN),
            (_RETURN, 0, 0, 0),  # drop
            (_RETURN, 0, 0, 0xFFFF),  # keep
        )
    )
    buffer = ctypes.create_string_buffer(program)
    filter_program = struct.pack("HP", len(program) // 8, ctypes.addressof(buffer))
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, filter_program)
