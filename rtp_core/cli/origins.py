"""Where the settings of this command came from, for errors that come up later.

The configuration checks its own values and names their places; that a policy is not installed, a
file is missing or the model is too short for a length is found out elsewhere, sometimes in another
process. Such an error names the setting, and here its place is added.
"""

from __future__ import annotations

import re
from contextvars import ContextVar

from rtp_core.config.schema import EngineConfig
from rtp_core.errors import ConfigError, RtpError

_config: ContextVar[EngineConfig | None] = ContextVar("config_of_this_command", default=None)


def remember(config: EngineConfig | None) -> None:
    """The configuration that errors from now on are about."""
    _config.set(config)


def with_origins(error: RtpError) -> str:
    """The error's text, and the places of the settings it names that are not in it yet."""
    config = _config.get()
    places = [] if config is None else places_of(error, config)
    return "\n".join([str(error), *(f"  {place}" for place in places)])


def places_of(error: RtpError, config: EngineConfig) -> list[str]:
    """``KEY is given by SOURCE`` of each setting an error is about."""
    text = str(error)
    return [
        f"{key} is given by {source}"
        for key, source in config.origins.items()
        if source not in text
        and (_names(text, key) or _is_below(error, key) or _is_about_the_model(text, key, config))
    ]


def _names(text: str, key: str) -> bool:
    return re.search(rf"(?<![\w.]){re.escape(key)}(?![\w.]*\w)", text) is not None


def _is_below(error: RtpError, key: str) -> bool:
    """Errors about all options of a plugin name its table."""
    return isinstance(error, ConfigError) and key.startswith(f"{error.field}.")


def _is_about_the_model(text: str, key: str, config: EngineConfig) -> bool:
    """Errors about a model name its path and not the setting."""
    return key == "model.path" and config.origins[key] != "MODEL" and config.model.path in text
