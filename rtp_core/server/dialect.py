"""Other APIs' requests as chat requests: one set of checks, told in the caller's own words."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rtp_core.errors import RequestError
from rtp_core.server.body import typed
from rtp_core.server.chat import read_plan
from rtp_core.server.chat_plan import ChatPlan
from rtp_core.server.schema.chat import ChatBody
from rtp_core.server.service import Service

_MESSAGE = re.compile(r"messages\[(?P<index>\d+)\](?P<rest>\.content.*)?")
_TOOL = re.compile(r"(?P<tool>tools\[\d+\])\.function")


@dataclass(frozen=True, slots=True)
class Dialect:
    """Where the fields of a chat request came from.

    `names` has the caller's names of fields, `places` where each message stood.
    """

    names: Mapping[str, str]
    places: Sequence[str] = ()

    @contextmanager
    def spoken(self) -> Iterator[None]:
        """Errors about chat's fields leave as errors about the caller's."""
        try:
            yield
        except RequestError as error:
            raise self._translated(error) from error

    def _translated(self, error: RequestError) -> RequestError:
        if error.param is None:
            return error
        param = self._name(error.param)
        return RequestError(
            param,
            error.message.replace(error.param, param, 1),
            status=error.status,
            code=error.code,
            remedy=error.remedy,
            retry_after_s=error.retry_after_s,
        )

    def _name(self, param: str) -> str:
        message = _MESSAGE.match(param)
        if message is not None and int(message["index"]) < len(self.places):
            place, rest = self.places[int(message["index"])], message["rest"] or ""
            return place + (rest.removeprefix(".content") if place == "system" else rest)
        param = _TOOL.sub(r"\g<tool>", param)
        head, dot, rest = param.partition(".")
        return self.names.get(head, head) + dot + rest


def chat_plan(fields: Mapping[str, Any], service: Service, dialect: Dialect) -> ChatPlan:
    """The plan of a chat request with these fields; None counts as absent."""
    with dialect.spoken():
        return read_plan(typed(fields, ChatBody), service)
