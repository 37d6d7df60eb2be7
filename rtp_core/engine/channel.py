"""Both ends of the socket between a front and its engine process: zmq over a private ipc path.

The parent binds a ROUTER in a fresh directory of mode 0700 and talks to one peer only, the one
that showed the token given to the child on its standard input. Strangers can connect, but what
they say is dropped and nothing is said to them; frames above the cap cost them the connection.
"""

from __future__ import annotations

import math
import shutil
import socket
import tempfile
from collections import deque
from contextlib import suppress
from pathlib import Path

import msgspec
import zmq

from rtp_core.engine.wire import (
    MAX_FRAME_BYTES,
    FromEngine,
    Refused,
    ToEngine,
    decode_to_engine,
    describe,
    encode,
    request_id_of,
)
from rtp_core.errors import ConfigError, RequestError, RtpError

_BATCH = 256
"""Frames taken at once, so that a flood cannot starve the sender's side."""
_LINGER_MS = 1000
"""How long a closing end keeps trying to hand over its last frames."""


class PeerLostError(RtpError):
    """The connection of the peer is gone, so it can be told nothing more."""


class ParentChannel:
    """The front's end. `post` and `wake` are safe in any thread, the rest in one thread."""

    def __init__(self) -> None:
        self.peer: bytes | None = None
        self._outgoing: deque[bytes] = deque()
        self._directory = Path(tempfile.mkdtemp(prefix="rtp-"))
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.set(zmq.ROUTER_MANDATORY, 1)
        self._socket.set(zmq.MAXMSGSIZE, MAX_FRAME_BYTES)
        self._socket.set(zmq.SNDHWM, 0)  # the server bounds the requests in flight
        self._socket.set(zmq.LINGER, 0)
        self.endpoint = f"ipc://{self._directory / 'engine'}"
        self._bind()
        self._bell, self._ear = socket.socketpair()
        self._bell.setblocking(False)
        self._ear.setblocking(False)
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._ear, zmq.POLLIN)

    def post(self, frame: bytes) -> None:
        """Send to the peer as soon as there is one."""
        self._outgoing.append(frame)
        self.wake()

    def wake(self) -> None:
        """Make `wait` return."""
        with suppress(OSError):  # full: it is awake; closed: nobody waits
            self._bell.send(b"\0")

    def forget(self) -> None:
        """The peer is gone; what it was not sent is dropped."""
        self.peer = None
        self._outgoing.clear()

    def wait(self, timeout_s: float | None) -> list[tuple[bytes, bytes]]:
        """Send what is posted; frames received, with their senders. Raises PeerLostError."""
        self._flush()
        self._poller.poll(_milliseconds(timeout_s))
        with suppress(BlockingIOError):
            self._ear.recv(4096)
        self._flush()
        received: list[tuple[bytes, bytes]] = []
        with suppress(zmq.Again):
            while len(received) < _BATCH:
                parts = self._socket.recv_multipart(zmq.NOBLOCK)
                if len(parts) == 2:
                    received.append((parts[0], parts[1]))
        return received

    def close(self) -> None:
        """Free the socket and its directory."""
        self._socket.close()
        self._context.term()
        self._bell.close()
        self._ear.close()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _bind(self) -> None:
        try:
            self._socket.bind(self.endpoint)
        except zmq.ZMQError as error:
            self._context.destroy(linger=0)
            shutil.rmtree(self._directory, ignore_errors=True)
            raise ConfigError(
                "TMPDIR",
                f"no socket can be made at {self.endpoint}: {error}",
                remedy="name a shorter directory that can be written to",
            ) from error

    def _flush(self) -> None:
        while self.peer is not None and self._outgoing:
            try:
                self._socket.send_multipart([self.peer, self._outgoing[0]], zmq.NOBLOCK)
            except zmq.ZMQError as error:
                raise PeerLostError("the engine process closed its connection") from error
            self._outgoing.popleft()


class ChildChannel:
    """The engine's end; one thread uses it. Implements `loop.Inbox`."""

    def __init__(self, endpoint: str) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.set(zmq.MAXMSGSIZE, MAX_FRAME_BYTES)
        self._socket.set(zmq.RCVHWM, 0)
        self._socket.set(zmq.LINGER, _LINGER_MS)
        self._socket.connect(endpoint)

    def send(self, message: FromEngine) -> None:
        """Blocks while the front is a thousand messages behind."""
        self._socket.send(encode(message))

    def take(self, timeout_s: float | None) -> list[ToEngine]:
        """As Inbox.take. Raises msgspec.DecodeError on what is no message."""
        messages: list[ToEngine] = []
        if not self._socket.poll(_milliseconds(timeout_s)):
            return messages
        with suppress(zmq.Again):
            while len(messages) < _BATCH:
                message = self._read(self._socket.recv(zmq.NOBLOCK))
                if message is not None:
                    messages.append(message)
        return messages

    def close(self) -> None:
        """Hand over the last frames and free the socket."""
        self._socket.close()
        self._context.term()

    def _read(self, frame: bytes) -> ToEngine | None:
        """A request that cannot be read is refused; anything else is a broken front."""
        try:
            return decode_to_engine(frame)
        except (msgspec.DecodeError, RtpError) as error:
            request_id = request_id_of(frame)
            if request_id is None:
                raise
            refusal = RequestError(None, f"the engine cannot read the request: {error}")
            self.send(Refused(request_id, describe(refusal)))
            return None


def _milliseconds(timeout_s: float | None) -> int | None:
    """Rounded up: a wait that ends too early would only be repeated."""
    return None if timeout_s is None else math.ceil(1000 * timeout_s)
