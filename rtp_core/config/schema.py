"""The typed settings tree. One frozen dataclass a TOML section; defaults live here only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """``[model]``: which model, at what precision, how long."""

    path: str = "demo"
    dtype: str = "auto"
    cpu_weights: str = "auto"
    max_model_len: int | None = None
    tokenizer: str | None = None
    served_name: tuple[str, ...] = ()
    chat_template: str | None = None
    attention: str = "auto"
    seed: int = 0


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """``[server]``: where to listen, who may ask, how much."""

    host: str = "127.0.0.1"
    port: int = 8000
    api_keys: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    max_body_bytes: int = 32 * 2**20
    max_queued_requests: int = 1024
    keep_alive_s: float = 15.0
    shutdown_timeout_s: float = 30.0
    ui: bool = True
    verbose: bool = False


@dataclass(frozen=True, slots=True)
class LoadingConfig:
    """``[loading]``: the weight loader by offer name, or ``auto``."""

    loader: str = "auto"


@dataclass(frozen=True, slots=True)
class SchedulingConfig:
    """``[scheduling]``: policy by offer name and the step's budget."""

    policy: str = "fcfs"
    max_num_seqs: int = 64
    max_num_batched_tokens: int = 1024


@dataclass(frozen=True, slots=True)
class KVConfig:
    """``[kv]``: store, block size, memory (fraction of free memory, or bytes), prefix cache."""

    store: str = "dense"
    block_size: int | None = None
    memory: float = 0.0
    prefix_caching: bool = True
    tiers: tuple[str, ...] = ()
    hash_secret_file: str | None = None
    watermark: float = 0.05


@dataclass(frozen=True, slots=True)
class SpeculationConfig:
    """``[speculation]``: speculators by offer name, first that drafts wins."""

    methods: tuple[str, ...] = ()
    max_draft_tokens: int = 4


@dataclass(frozen=True, slots=True)
class ModalityConfig:
    """``[modality]``: encoders by offer name and the feature cache's size."""

    encoders: tuple[str, ...] = ()
    feature_cache_bytes: int = 256 * 2**20
    allowed_media_domains: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PDConfig:
    """``[pd]``: role of this engine in a disaggregated deployment."""

    role: str = "both"
    peers: tuple[str, ...] = ()
    transport: str = "tcp"


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """All sections. ``plugins`` maps plugin name to its raw option table.

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
