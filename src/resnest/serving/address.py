"""The address of a server.

with bind("127.0.0.1", 8000) as sock: ...
"""

from __future__ import annotations

import errno
import socket

from resnest.errors import ResnestError, parameter


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises ResnestError: the port is taken, or the host is not this machine's."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    # inherited by connections: asyncio sets it only for sockets of which it knows that they are TCP's, and with Nagle's
    # algorithm an answer's second packet waits for the client's delayed acknowledgement, 40 ms
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        reason = (error.strerror or str(error)).lower()
        if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
            here = "0.0.0.0 for all of this machine, or 127.0.0.1 for itself alone"
            raise ResnestError(f"{parameter('host', host)}: {reason}: {here}") from None
        raise ResnestError(f"{host} port {port}: {reason}: choose another with {parameter('port', '0')}") from None
    except OverflowError:
        sock.close()
        raise ResnestError(f"{parameter('port', port)}: expected 0 to 65535") from None
    return sock
