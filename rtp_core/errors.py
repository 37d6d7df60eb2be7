"""The error tree. Every error ends with a remedy when one is known."""

from __future__ import annotations


class RtpError(Exception):
    """Root of all errors raised on purpose. `remedy` is one imperative sentence."""

    def __init__(self, message: str, *, remedy: str | None = None) -> None:
        super().__init__(f"{message} ({remedy})" if remedy else message)
        self.message = message
        self.remedy = remedy


class ConfigError(RtpError):
    """A configuration value is wrong. `field` is its dotted key, e.g. ``kv.block_size``."""

    def __init__(self, field: str, message: str, *, remedy: str | None = None) -> None:
        super().__init__(f"{field}: {message}", remedy=remedy)
        self.field = field


class RequestError(RtpError):
    """A request is wrong; the client is at fault and the engine goes on.

    `param` names the offending field in the client's vocabulary; `status` is the HTTP
    status; `code` the OpenAI error code, if one fits; `retry_after_s` when to come again.
    """

    def __init__(
        self,
        param: str | None,
        message: str,
        *,
        status: int = 400,
        code: str | None = None,
        remedy: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.retry_after_s = retry_after_s
        self.param = param
        self.status = status
        self.code = code


class PluginError(RtpError):
    """A plugin misbehaved, attributed to its name and version."""

    def __init__(
        self, plugin: str, version: str, message: str, *, remedy: str | None = None
    ) -> None:
        super().__init__(f"plugin {plugin} {version}: {message}", remedy=remedy)
        self.plugin = plugin
        self.version = version


class ResolutionError(RtpError):
    """The configuration asks for offers that the installed plugins cannot supply together."""


class ModelError(RtpError):
    """A model directory, file or architecture cannot be used."""


class WeightLoadError(ModelError):
    """A checkpoint is damaged or does not fit the model. Names file and tensor."""

    def __init__(
        self, message: str, *, file: str = "", tensor: str = "", remedy: str | None = None
    ) -> None:
        where = ": ".join(part for part in (file, tensor) if part)
        super().__init__(f"{where}: {message}" if where else message, remedy=remedy)
        self.file = file
        self.tensor = tensor


class CapacityError(RtpError):
    """Memory, blocks or queue places do not suffice."""


class EngineDeadError(RtpError):
    """The engine stopped; requests in flight cannot be finished."""


class DeviceLostError(EngineDeadError):
    """A device answers every call with an error until its process ends."""
