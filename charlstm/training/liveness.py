"""Notices that a rank has died, whatever the launcher does about it.

MPI does not say that a process it waits for is gone, and not every launcher ends a job when one is. So each rank holds
a TCP connection to rank 0, and a thread that sends a byte every second. A rank that dies closes its connection. A host
that goes away falls silent. If a rank can't connect (a firewall), only the launcher watches over it.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from charlstm.nn.threads import leave_signals

BEAT_S = 1.0
"""Seconds between two bytes."""
SILENCE_S = 7.0
"""Seconds of silence after which a rank on another host counts as dead. One on this host may be suspended, or short of CPU time."""
CONNECT_S = 3.0
"""Maximum number of seconds to connect."""
GRACE_S = 0.2
"""Seconds that the main thread has to notice a failure; a launcher may kill all ranks soon after one has died."""
LINGER_S = 5.0
"""Maximum number of seconds that a rank which has failed waits for rank 0 to say so."""
FAILED = b"!"
"""Precedes the sentence of a rank that fails by itself, which a line end follows."""


class Liveness:
    """The connections of one rank, and the thread that watches them."""

    def __init__(self, on_failure: Callable[[str], None]) -> None:
        """Prepare; `on_failure` gets a sentence if the main thread does not read `failure` soon enough."""
        self.on_failure = on_failure
        self.names: dict[socket.socket, str] = {}  # what is at the other end
        self.distant: set[socket.socket] = set()  # those that lead to another host
        self.failure = ""  # why the job must end
        self.read = False  # whether the main thread has seen it
        self.closing = False
        self.complete = True  # whether all ranks have connected to this one, if it is rank 0

    def listen(self) -> tuple[socket.socket, dict[str, Any]]:
        """Listen on rank 0; return the socket and where to connect to."""
        server = socket.create_server(("", 0))
        server.settimeout(CONNECT_S)
        return server, {"port": server.getsockname()[1], "addresses": [socket.gethostname(), *_addresses()]}

    def accept(self, server: socket.socket, token: bytes, names: list[str], local: set[int]) -> None:
        """Accept the other ranks on rank 0; `names` says how to call each rank, and `local` which are on this host."""
        until = time.monotonic() + CONNECT_S
        with server, contextlib.suppress(OSError):
            while len(self.names) < len(names) - 1 and time.monotonic() < until:
                connection, _ = server.accept()
                connection.settimeout(CONNECT_S)
                greeting = connection.recv(len(token) + 4, socket.MSG_WAITALL)
                if greeting[: len(token)] == token:
                    connection.sendall(token[::-1])
                    rank = int.from_bytes(greeting[len(token) :], "big")
                    self.names[connection] = names[rank]
                    self.distant |= set() if rank in local else {connection}
                else:
                    connection.close()
        self.complete = len(self.names) == len(names) - 1

    def connect(self, port: int, addresses: list[str], token: bytes, rank: int, *, local: bool) -> None:
        """Connect to rank 0, which may be on this host; without success, this rank is not watched."""
        for address in ["127.0.0.1"] if local else addresses:
            with contextlib.suppress(OSError):
                connection = socket.create_connection((address, port), timeout=CONNECT_S / 2)
                connection.sendall(token + rank.to_bytes(4, "big"))
                if connection.recv(len(token), socket.MSG_WAITALL) != token[::-1]:
                    connection.close()  # the name of rank 0's host means another one here
                    continue
                self.names[connection] = "rank 0"
                self.distant |= set() if local else {connection}
                return

    def watch(self) -> None:
        """Start the thread."""
        for connection in self.names:
            connection.settimeout(0)
        threading.Thread(target=self._watch, name="charlstm-liveness", daemon=True).start()

    def close(self) -> None:
        """Expect the connections to be closed from now on."""
        self.closing = True

    def report(self, sentence: str) -> bool:
        """Tell the ranks at the other ends why this one fails; return whether all that are left could be told."""
        self.closing = True
        for connection in self.names:
            with contextlib.suppress(OSError):  # it has died
                connection.settimeout(CONNECT_S)
                connection.sendall(FAILED + " ".join(sentence.split()).encode() + b"\n")
        return bool(self.names) and self.complete

    def outlive(self) -> None:
        """Wait until rank 0 has ended, for some seconds: launchers end all ranks soon after the first."""
        until = time.monotonic() + LINGER_S
        with contextlib.suppress(OSError):
            for connection in self.names:
                while time.monotonic() < until and FAILED not in (data := connection.recv(4096)) and data:
                    pass

    def _watch(self) -> None:
        leave_signals()
        silent_s = dict.fromkeys(self.names, 0.0)
        sentences: dict[socket.socket, bytes] = {}
        before = beat = time.monotonic()
        while not self.closing and not self.failure:
            ready = select.select(list(silent_s), [], [], BEAT_S / 2)[0]
            now = time.monotonic()
            passed, before = (
                min(now - before, BEAT_S),
                now,
            )  # of the time that this process was suspended, little counts
            for connection in silent_s:
                silent_s[connection] = 0.0 if connection in ready else silent_s[connection] + passed
                if connection in ready:
                    self._receive(connection, sentences)
                elif silent_s[connection] > SILENCE_S and connection in self.distant:
                    self._fail(f"{self.names[connection]} no longer answers")
            if now - beat >= BEAT_S:
                beat = now
                for connection in silent_s:
                    with contextlib.suppress(OSError):
                        connection.send(b".")

    def _receive(self, connection: socket.socket, sentences: dict[socket.socket, bytes]) -> None:
        try:
            data = connection.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        said = sentences[connection] = (sentences.get(connection, b"") + data).lstrip(b".")
        if said.startswith(FAILED) and (b"\n" in said or not data):
            sentence = said[len(FAILED) :].partition(b"\n")[0]
            self._fail(f"{self.names[connection]} failed: {sentence.decode(errors='replace')}")
        elif not data:
            self._fail(f"{self.names[connection]} died")

    def _fail(self, what: str) -> None:
        """Let the main thread end the job; if it is busy, end it from here."""
        if self.closing or self.failure:
            return
        self.failure = what
        until = time.monotonic() + GRACE_S
        while time.monotonic() < until:
            if self.read or self.closing:
                return
            time.sleep(0.005)
        self.on_failure(what)


def _addresses() -> list[str]:
    """Return the addresses of this host that others may reach."""
    addresses: list[str] = []
    with contextlib.suppress(OSError):
        addresses += [str(info[4][0]) for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)]
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing, but chooses the interface of the default route
        addresses.append(probe.getsockname()[0])
    with contextlib.suppress(OSError, ImportError, AttributeError):
        addresses += _interfaces()
    return list(dict.fromkeys(address for address in addresses if not address.startswith("127.")))


def _interfaces() -> list[str]:
    """Return the address of each network interface, on Linux."""
    import fcntl

    addresses = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):
                answer = fcntl.ioctl(probe, 0x8915, name.encode()[:15].ljust(256, b"\0"))  # SIOCGIFADDR
                addresses.append(socket.inet_ntoa(answer[20:24]))
    return addresses
