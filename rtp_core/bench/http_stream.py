"""HTTP/1.1 answers and server-sent events, as bytes arrive: no sockets here.

Small on purpose: a load generator must cost less than what it measures.
"""

from __future__ import annotations

MAX_HEAD_BYTES = 64 * 1024
MAX_LINE_BYTES = 16 * 2**20


class ProtocolError(Exception):
    """The other side does not speak HTTP/1.1, or breaks off."""


class AnswerReader:
    """One answer. `status` and `headers` (names in lower case) are set once its head is there."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        self.complete = False
        self._buffer = bytearray()
        self._left: int | None = None
        self._chunked = False
        self._trailer = False

    def feed(self, data: bytes) -> bytes:
        """Bytes of the body among what has arrived. Raises ProtocolError."""
        self._buffer += data
        if self.status is None and not self._read_head():
            return b""
        if self._chunked:
            return self._read_chunks()
        return self._read_plain()

    def end(self) -> None:
        """The connection was closed. Raises ProtocolError if the answer is not whole."""
        if self.status is not None and not self._chunked and self._left is None:
            self.complete = True  # HTTP/1.0: the end of the connection is the end of the body
        if not self.complete:
            raise ProtocolError("the connection ended before the answer did")

    def _read_head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > MAX_HEAD_BYTES:
                raise ProtocolError("the head of the answer has no end")
            return False
        first, *lines = bytes(self._buffer[:end]).decode("latin-1").split("\r\n")
        del self._buffer[: end + 4]
        version, _, rest = first.partition(" ")
        code = rest[:3]
        if not version.startswith("HTTP/1.") or not (code.isascii() and code.isdigit()):
            raise ProtocolError("this is no HTTP/1.1 server")
        pairs = (line.partition(":") for line in lines)
        self.headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        self.status = int(code)
        self._read_framing()
        return True

    def _read_framing(self) -> None:
        self._chunked = self.headers.get("transfer-encoding", "").lower() == "chunked"
        length = self.headers.get("content-length")
        if length is not None and not self._chunked:
            if not (length.isascii() and length.isdigit()):
                raise ProtocolError("content-length is no number")
            self._left = int(length)

    def _read_plain(self) -> bytes:
        size = len(self._buffer) if self._left is None else min(self._left, len(self._buffer))
        body = bytes(self._buffer[:size])
        del self._buffer[:size]
        if self._left is not None:
            self._left -= size
            self.complete = self._left == 0
        return body

    def _read_chunks(self) -> bytes:
        body: list[bytes] = []
        while not self.complete:
            if self._left is None:
                if not self._read_size():
                    break
            elif len(self._buffer) < self._left + 2:
                break
            else:
                body.append(bytes(self._buffer[: self._left]))
                del self._buffer[: self._left + 2]
                self._left = None
        return b"".join(body)

    def _read_size(self) -> bool:
        """A chunk's length, or a line of the trailer; False when the line is not all there."""
        end = self._buffer.find(b"\r\n")
        if end < 0:
            if len(self._buffer) > MAX_HEAD_BYTES:
                raise ProtocolError("a chunk has no length")
            return False
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        if self._trailer:
            self.complete = not line
            return True
        try:
            size = int(line.partition(b";")[0], 16)
        except ValueError:
            raise ProtocolError("a chunk's length is no number") from None
        if not 0 <= size <= MAX_LINE_BYTES:
            raise ProtocolError(f"a chunk of {size} bytes is too large")
        self._trailer = size == 0
        self._left = size or None
        return True


class EventReader:
    """Payloads of ``data:`` lines; comments and other fields are passed over."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Payloads whose line has ended. Raises ProtocolError for a line without end."""
        lines = (self._buffer + data).split(b"\n")
        self._buffer = lines.pop()
        if len(self._buffer) > MAX_LINE_BYTES:
            raise ProtocolError("a line of the stream has no end")
        return [line[5:].strip() for line in lines if line.startswith(b"data:")]
