"""Fields that are known and not honoured: ignored ones, and refused ones with the reason."""

from __future__ import annotations

IGNORED = frozenset(
    {
        "user",
        "metadata",
        "store",
        "service_tier",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "verbosity",
        "moderation",
    }
)
"""Sent by client libraries and gateways; without meaning for one model on one server."""

_GUIDED = "was removed; use structured_outputs: {{{}: …}}"

REFUSED = {
    "functions": "was replaced: use tools",
    "function_call": "was replaced: use tool_choice",
    "audio": "this server generates text only",
    "web_search_options": "this server does not search the web",
    "prediction": "is not supported; speculation is configured on the server",
    "chat_template": "templates are set on the server only (model.chat_template)",
    "use_beam_search": "beam search is not supported; use n",
    "length_penalty": "beam search is not supported",
    "early_stopping": "beam search is not supported",
    "logits_processors": "client code is not run on the server; use logit_bias",
    "prompt_embeds": "embeddings from clients are refused; send text or token ids",
    "vllm_xargs": "is not supported; every option has its own field",
    "kv_transfer_params": "is for engines among themselves",
    "suffix": "filling in the middle needs a template this model does not have",
    "documents": "retrieval is not supported; put the text into messages",
    "guided_json": _GUIDED.format("json"),
    "guided_regex": _GUIDED.format("regex"),
    "guided_choice": _GUIDED.format("choice"),
    "guided_grammar": _GUIDED.format("grammar"),
    "guided_json_object": _GUIDED.format("json_object"),
    "guided_decoding_backend": "was removed; there is one backend, llguidance",
    "guided_whitespace_pattern": "was removed; JSON is written without optional blanks",
}
