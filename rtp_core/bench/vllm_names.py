"""Names of `vllm bench serve` that flags and results share."""

from __future__ import annotations

METRICS = ("ttft", "tpot", "itl", "e2el")
BACKENDS = {"openai": "completions", "vllm": "completions", "openai-chat": "chat"}
"""Values of --backend and the endpoint they mean."""
OWN_FIELDS = frozenset({"model", "prompt", "messages", "stream", "stream_options", "max_tokens"})
"""Fields of a request that are not for --extra-body."""
_KEYS = frozenset(
    {
        "backend",
        "began",
        "burstiness",
        "command",
        "completed",
        "date",
        "device",
        "duration",
        "endpoint_type",
        "errors",
        "failed",
        "input_lens",
        "interrupted",
        "itls",
        "load_average",
        "machine",
        "max_concurrency",
        "max_concurrent_requests",
        "model",
        "model_id",
        "num_prompts",
        "output_lens",
        "output_throughput",
        "params",
        "request_goodput",
        "request_rate",
        "request_throughput",
        "results",
        "schema",
        "start_times",
        "torch",
        "total_input_tokens",
        "total_output_tokens",
        "total_token_throughput",
        "ttfts",
        "version",
    }
)


def is_reserved(key: str) -> bool:
    """Whether a file of results has this key already, so that --metadata cannot."""
    return key in _KEYS or any(key.endswith(f"_{metric}_ms") for metric in METRICS)
