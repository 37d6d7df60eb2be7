"""The typed settings tree. One frozen dataclass a TOML section; defaults live here only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from rtp_core.config.rules import Section, rule


@dataclass(frozen=True, slots=True)
class ModelConfig(Section):
    """``[model]``: which model, at what precision, how long."""

    section: ClassVar[str] = "model"
    path: str = field(
        default="demo",
        metadata=rule(
            "Model: a directory with safetensors, a .gguf file, an id of the Hugging Face hub "
            "(org/name, org/name@revision, org/name:file.gguf or org/name:Q4_K_M), a folder or "
            ".gguf object at s3://, gs:// or https://, or demo.",
            flag="--model",
        ),
    )
    revision: str | None = field(
        default=None,
        metadata=rule(
            "Branch, tag or commit of a model of the hub; unset is its main branch.",
            flag="--revision",
        ),
    )
    dtype: str = field(
        default="auto",
        metadata=rule(
            "Precision of weights and activations; auto is bfloat16, float32 is always exact.",
            choices=("auto", "float32", "bfloat16"),
            flag="--dtype",
        ),
    )
    device: str = field(
        default="auto",
        metadata=rule(
            "Device the model runs on; auto is a CUDA GPU if there is one.",
            choices=("auto", "cpu", "cuda"),
            flag="--device",
        ),
    )
    enforce_eager: bool = field(
        default=False,
        metadata=rule("Capture no CUDA graphs; a CPU always runs eagerly.", flag="--enforce-eager"),
    )
    cpu_weights: str = field(
        default="auto",
        metadata=rule(
            "Precision of weights on a CPU: auto keeps the codes of quantized files, int4 and int8 "
            "round other weights too, bf16 keeps none.",
            choices=("auto", "int4", "int8", "bf16"),
            flag="--cpu-weights",
        ),
    )
    quantization: str = field(
        default="auto",
        metadata=rule(
            "What the checkpoint must be quantized as; auto takes it as its config.json says, "
            "and another name only checks that.",
            choices=("auto", "none", "fp8", "compressed-tensors", "awq", "gptq", "gguf"),
            flag="--quantization",
        ),
    )
    max_model_len: int | None = field(
        default=None,
        metadata=rule(
            "Longest prompt and answer together, in tokens; unset is the model's own.",
            low=1,
            flag="--max-model-len",
        ),
    )
    tokenizer: str | None = field(
        default=None,
        metadata=rule(
            "Directory with tokenizer.json; unset is the model's own.", flag="--tokenizer"
        ),
    )
    served_name: tuple[str, ...] = field(
        default=(),
        metadata=rule(
            "Names clients may ask for; unset is model.path.", flag="--served-model-name"
        ),
    )
    chat_template: str | None = field(
        default=None,
        metadata=rule(
            "Jinja template, or a file that holds one; unset is the model's own.",
            flag="--chat-template",
        ),
    )
    attention: str = field(
        default="auto",
        metadata=rule("Attention backend by offer name, or auto for this device's."),
    )
    seed: int = field(
        default=0,
        metadata=rule(
            "Seed of the engine. Only 0: a request without a seed draws a fresh one.",
            low=0,
            high=0,
            otherwise="set seed in the request: the engine draws nothing of its own",
            flag="--seed",
        ),
    )


@dataclass(frozen=True, slots=True)
class ServerConfig(Section):
    """``[server]``: where to listen, who may ask, how much."""

    section: ClassVar[str] = "server"
    host: str = field(default="127.0.0.1", metadata=rule("Address to listen on.", flag="--host"))
    port: int = field(
        default=8000,
        metadata=rule("Port to listen on; 0 takes a free one.", low=0, high=65535, flag="--port"),
    )
    api_keys: tuple[str, ...] = field(
        default=(),
        metadata=rule("Keys of which a client must send one; none lets all in.", flag="--api-key"),
    )
    cors_origins: tuple[str, ...] = field(
        default=(), metadata=rule("Web origins that browsers may call from.")
    )
    max_body_bytes: int = field(
        default=32 * 2**20, metadata=rule("Largest request body, in bytes.", low=1)
    )
    max_queued_requests: int = field(
        default=1024, metadata=rule("Requests that may wait before new ones get 503.", low=1)
    )
    keep_alive_s: float = field(
        default=15.0, metadata=rule("Seconds between signs of life on a silent stream.", low=0)
    )
    shutdown_timeout_s: float = field(
        default=30.0,
        metadata=rule(
            "Seconds that requests in flight get to end.", low=0, flag="--shutdown-timeout"
        ),
    )
    request_timeout_s: float = field(
        default=0.0,
        metadata=rule("Seconds from arrival to the last token; then 504. 0: no limit.", low=0),
    )
    max_requests_per_key: int = field(
        default=0,
        metadata=rule(
            "Requests that one API key may have under way; then 429. 0: no limit.", low=0
        ),
    )
    tokens_per_minute_per_key: int = field(
        default=0,
        metadata=rule(
            "Tokens, of prompts and answers, that one API key may use a minute; "
            "then 429. 0: no limit.",
            low=0,
        ),
    )
    root_path: str | None = field(
        default=None,
        metadata=rule(
            "Prefix of all paths behind a proxy, as /llm; answered below it and, where the proxy "
            "takes it off, without.",
            pattern=r"(/(?!\.{1,2}(/|$))[A-Za-z0-9._~-]+)+",
            otherwise="write it as /llm: a slash first, none last; letters, digits and . _ ~ -",
            flag="--root-path",
        ),
    )
    ssl_certfile: str | None = field(
        default=None,
        metadata=rule(
            "Certificate chain in PEM; the server then speaks TLS.", flag="--ssl-certfile"
        ),
    )
    ssl_keyfile: str | None = field(
        default=None, metadata=rule("Its private key in PEM.", flag="--ssl-keyfile")
    )
    log_format: str = field(
        default="text",
        metadata=rule("Form of a log line.", choices=("text", "json")),
    )
    otlp_traces_endpoint: str | None = field(
        default=None,
        metadata=rule(
            "Where traces go, OTLP over HTTP; needs rtp-core[otel].", flag="--otlp-traces-endpoint"
        ),
    )
    open_operations: bool = field(
        default=False,
        metadata=rule(
            "Let everybody drain the server and reset its cache where it needs no key and other "
            "machines reach it."
        ),
    )
    tool_call_parser: str = field(
        default="auto",
        metadata=rule(
            "How calls of tools are read, by offer name; auto looks into the chat template, none "
            "reads no calls.",
            flag="--tool-call-parser",
        ),
    )
    reasoning_parser: str = field(
        default="auto",
        metadata=rule(
            "How thoughts are told from answers, by offer name; auto looks into the chat "
            "template, none tells nothing apart.",
            flag="--reasoning-parser",
        ),
    )
    enable_auto_tool_choice: bool = field(
        default=True,
        metadata=rule(
            "Let models decide whether to call a tool; without it a request must say.",
            flag="--enable-auto-tool-choice",
        ),
    )
    reasoning_content: bool = field(
        default=False,
        metadata=rule("Tell thoughts under their old name reasoning_content too."),
    )
    ui: bool = field(default=True, metadata=rule("Serve the page at /."))
    verbose: bool = field(
        default=False,
        metadata=rule("Log every request, and every file of weights.", flag="--verbose"),
    )


@dataclass(frozen=True, slots=True)
class LoadingConfig(Section):
    """``[loading]``: the weight loader."""

    section: ClassVar[str] = "loading"
    loader: str = field(
        default="auto",
        metadata=rule("Weight loader by offer name; auto measures the storage first."),
    )
    stall_timeout_s: float = field(
        default=120.0,
        metadata=rule("Seconds without a byte of weights after which a start fails.", low=1),
    )
    check_finite: bool = field(
        default=False,
        metadata=rule("Refuse weights that are not numbers; costs a pass over all of them."),
    )
    checksums: bool = field(
        default=False,
        metadata=rule(
            "Compare files with the SHA-256 that the model's directory tells (SHA256SUMS, "
            "FILE.sha256) before they are loaded; costs a second read."
        ),
    )
    source_options: tuple[str, ...] = field(
        default=(),
        metadata=rule(
            "Options of the object store that model.path names with s3:// or gs://, as KEY=VALUE "
            "of fsspec's file system (endpoint_url=https://host, anon=true)."
        ),
    )


@dataclass(frozen=True, slots=True)
class SchedulingConfig(Section):
    """``[scheduling]``: policy and the step's budget."""

    section: ClassVar[str] = "scheduling"
    policy: str = field(
        default="fcfs",
        metadata=rule("Scheduling policy by offer name.", flag="--scheduling-policy"),
    )
    max_num_seqs: int | None = field(
        default=None,
        metadata=rule(
            "Most sequences in one step; unset is 64 on a CPU, 512 on a GPU.",
            low=1,
            flag="--max-num-seqs",
        ),
    )
    max_num_batched_tokens: int | None = field(
        default=None,
        metadata=rule(
            "Most tokens computed in one step; unset is 1024 on a CPU, 8704 on a GPU.",
            low=1,
            flag="--max-num-batched-tokens",
        ),
    )


@dataclass(frozen=True, slots=True)
class KVConfig(Section):
    """``[kv]``: store, block size, memory, prefix cache."""

    section: ClassVar[str] = "kv"
    store: str = field(default="dense", metadata=rule("KV store by offer name."))
    block_size: int | None = field(
        default=None,
        metadata=rule(
            "Tokens a block; unset is 16 on a CPU, 32 on a GPU.",
            low=1,
            high=1024,
            flag="--block-size",
        ),
    )
    memory: float = field(
        default=0.0,
        metadata=rule(
            "Memory of the cache: above 1 bytes; up to 1 a share of what is free, on a GPU the "
            "share of its memory that weights, work space and cache take together; 0 what one "
            "request of full length needs and at least 512 MiB, on a GPU a share of 0.9.",
            low=0,
        ),
    )
    prefix_caching: bool = field(
        default=True,
        metadata=rule(
            "Reuse the blocks of equal prompt beginnings.", flag="--enable-prefix-caching"
        ),
    )
    tiers: tuple[str, ...] = field(
        default=(), metadata=rule("Tiers below device memory by offer name, fastest first.")
    )
    hash_secret_file: str | None = field(
        default=None,
        metadata=rule(
            "File with the key of block hashes, created once; engines that share blocks share it."
        ),
    )
    watermark: float = field(
        default=0.05,
        metadata=rule("Share of blocks kept free when a sequence is admitted.", low=0, below=1),
    )


@dataclass(frozen=True, slots=True)
class SpeculationConfig(Section):
    """``[speculation]``: who drafts and how far."""

    section: ClassVar[str] = "speculation"
    methods: tuple[str, ...] = field(
        default=(), metadata=rule("Speculators by offer name; the first that drafts wins.")
    )
    max_draft_tokens: int = field(
        default=4, metadata=rule("Most draft tokens a sequence and step.", low=0, high=64)
    )


@dataclass(frozen=True, slots=True)
class ModalityConfig(Section):
    """``[modality]``: encoders and the feature cache."""

    section: ClassVar[str] = "modality"
    encoders: tuple[str, ...] = field(default=(), metadata=rule("Modality encoders by offer name."))
    feature_cache_bytes: int = field(
        default=256 * 2**20, metadata=rule("Bytes of encoded media kept for reuse.", low=0)
    )
    allowed_media_domains: tuple[str, ...] = field(
        default=(), metadata=rule("Hosts that media may be fetched from; none fetches nothing.")
    )


@dataclass(frozen=True, slots=True)
class PDConfig(Section):
    """``[pd]``: role of this engine in a disaggregated deployment."""

    section: ClassVar[str] = "pd"
    role: str = field(
        default="both",
        metadata=rule("both serves alone; any other role by offer name, as prefill or decode."),
    )
    peers: tuple[str, ...] = field(
        default=(), metadata=rule("Addresses of the engines that blocks go to or come from.")
    )
    transport: str = field(
        default="tcp",
        metadata=rule("Transport of blocks by offer name; unused if role is both."),
    )


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """All sections. ``plugins`` maps plugin name to its raw option table, ``origins`` the dotted
    key of each setting that was given to its source in words (a flag, a variable, a file's line).

    Built by `rtp_core.config.read`; every section may be overridden by flag, environment
    (``RTP_SECTION__KEY``) or ``--config`` file, in that order of precedence.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    server: ServerConfig = field(default_factory=ServerConfig)
    loading: LoadingConfig = field(default_factory=LoadingConfig)
    scheduling: SchedulingConfig = field(default_factory=SchedulingConfig)
    kv: KVConfig = field(default_factory=KVConfig)
    speculation: SpeculationConfig = field(default_factory=SpeculationConfig)
    modality: ModalityConfig = field(default_factory=ModalityConfig)
    pd: PDConfig = field(default_factory=PDConfig)
    plugins: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)


SECTIONS: Mapping[str, type[Section]] = {
    kind.section: kind
    for kind in (
        ModelConfig,
        ServerConfig,
        LoadingConfig,
        SchedulingConfig,
        KVConfig,
        SpeculationConfig,
        ModalityConfig,
        PDConfig,
    )
}
"""Every section with typed settings, by name, in the order of the documentation."""
