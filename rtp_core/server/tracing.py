"""OpenTelemetry traces of requests: one span a request, and one for each station it passed.

Spans are made when a request ends, from the times that its books hold anyway, so that nothing is
added to the path of a token. No span carries text of a prompt or an answer.
Attributes follow OpenTelemetry's conventions for generative AI (in development, 2026).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rtp_core.errors import ConfigError
from rtp_core.server.records import RequestRow, Stations

_NS = 1_000_000_000
_OPERATIONS = {"/v1/completions": "text_completion"}


class Traces:
    """Exports spans; the parent is the client's ``traceparent``, if it sent one."""

    def __init__(self, exporter: Any, model_name: str) -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        self._model_name = model_name
        self._provider = TracerProvider(
            resource=Resource({"service.name": "rtp"}), shutdown_on_exit=False
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("rtp")

    def record(self, row: RequestRow, stations: Stations, headers: Mapping[str, str]) -> None:
        """A request has ended."""
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        operation = _OPERATIONS.get(row.endpoint, "chat")
        span = self._tracer.start_span(
            f"{operation} {self._model_name}",
            TraceContextTextMapPropagator().extract(headers),
            SpanKind.SERVER,
            self._attributes(row, operation),
            start_time=_ns(row.started_unix_s),
        )
        if row.status >= 500:
            span.set_status(Status(StatusCode.ERROR))
        inside = set_span_in_context(span)
        for name, begin_s, end_s in stations.spans():
            start = _ns(row.started_unix_s + begin_s)
            child = self._tracer.start_span(name, inside, start_time=start)
            child.end(_ns(row.started_unix_s + end_s))
        span.end(_ns(row.started_unix_s + row.e2e_s))

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()

    def _attributes(self, row: RequestRow, operation: str) -> dict[str, Any]:
        found = {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": "rtp",
            "gen_ai.request.model": self._model_name,
            "gen_ai.response.model": self._model_name,
            "gen_ai.response.id": row.id,
            "gen_ai.usage.input_tokens": row.prompt_tokens,
            "gen_ai.usage.output_tokens": row.completion_tokens,
            "http.response.status_code": row.status,
        }
        if row.finish_reason is not None:
            found["gen_ai.response.finish_reasons"] = (row.finish_reason,)
        return found


def open_traces(endpoint: str | None, model_name: str) -> Traces | None:
    """Spans over OTLP and HTTP to `endpoint`; None for none. Raises ConfigError."""
    return None if endpoint is None else Traces(exporter_to(endpoint), model_name)


def exporter_to(endpoint: str) -> Any:
    """What sends spans to `endpoint`. Raises ConfigError if it cannot be made."""
    if not endpoint.startswith(("http://", "https://")):
        raise ConfigError(
            "server.otlp_traces_endpoint",
            f"{endpoint!r} is no HTTP address",
            remedy="give the whole address, such as http://localhost:4318/v1/traces",
        )
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        raise ConfigError(
            "server.otlp_traces_endpoint",
            f"traces need OpenTelemetry: {error}",
            remedy="pip install 'rtp-core[otel]'",
        ) from error
    return OTLPSpanExporter(endpoint)


def _ns(unix_s: float) -> int:
    return int(unix_s * _NS)
