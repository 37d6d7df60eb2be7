"""The socket the server listens on, and what its address means."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import resource
import socket

from rtp_core.config.schema import ServerConfig
from rtp_core.errors import ConfigError

log = logging.getLogger("rtp.server")

BACKLOG = 2048
_FILES = 65536
"""Each connection is an open file, and shells often allow a thousand."""


def bind(config: ServerConfig) -> socket.socket:
    """A listening socket. Raises ConfigError naming the setting that is wrong."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            config.host, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise ConfigError("server.host", f"{config.host!r} is no address: {error}") from error
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigError(
            "server.port",
            f"cannot listen on {config.host} port {config.port}: {error.strerror}",
            remedy="choose another port with --port, or stop what uses this one",
        ) from error
    listener.setblocking(False)
    return listener


def allow_connections() -> None:
    """Let this process open as many files as it may, within reason."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def warn_if_open(config: ServerConfig) -> None:
    """A server that other machines reach should ask for a key."""
    if not config.api_keys and not is_loopback(config.host):
        log.warning(
            "open_server host=%s: anyone who reaches it may use it; set server.api_keys",
            config.host,
        )


def is_loopback(host: str) -> bool:
    """True for addresses that only this machine reaches."""
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


def check_tls(config: ServerConfig) -> None:
    """Certificate and key must be there and fit. Raises ConfigError naming the setting."""
    if config.ssl_certfile is None:
        if config.ssl_keyfile is not None:
            raise ConfigError(
                "server.ssl_certfile", "a key without a certificate", remedy="set both or neither"
            )
        return
    # Imported here: servers without TLS start without it.
    import ssl

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
            config.ssl_certfile, config.ssl_keyfile, password=_no_password
        )
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise ConfigError(
            "server.ssl_certfile",
            f"certificate and key cannot be used: {error}",
            remedy="give a certificate chain and its private key as PEM, without a password",
        ) from error


def _no_password() -> str:
    raise ValueError("the key asks for a password")


def url(listener: socket.socket, *, secure: bool = False) -> str:
    """The address of a listening socket for a browser."""
    host, port = listener.getsockname()[:2]
    address = ipaddress.ip_address(host)
    if address.is_unspecified:
        address = ipaddress.ip_address("127.0.0.1" if address.version == 4 else "::1")
    scheme = "https" if secure else "http"
    host = f"[{address}]" if address.version == 6 else str(address)
    return f"{scheme}://{host}:{port}"
