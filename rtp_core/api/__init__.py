"""The plugin contract. Standard library and pluggy only at run time; no torch."""

from __future__ import annotations

from rtp_core.api.disaggregation import (
    GroupDone,
    KVTransport,
)
from rtp_core.api.hookspecs import (
    hookimpl,
)
from rtp_core.api.kv import (
    BlockCopy,
    KVEvent,
    KVFormat,
    KVFormatId,
    KVGroup,
    KVLoad,
    KVMemory,
    KVPlane,
    KVQuality,
    KVSpace,
    KVStore,
    KVTier,
    TierBlock,
)
from rtp_core.api.modality import (
    MediaItem,
    MediaPlanner,
    ModalityEncoder,
)
from rtp_core.api.model import (
    AttentionBackend,
    AttentionPlan,
    BoundAttention,
    CausalModel,
    CheckedModel,
    EarlyFamily,
    ExpertsSpec,
    ForwardOutput,
    HeadNorms,
    ModelFamily,
    ModelSpec,
    ParallelContext,
    QueueingModel,
    RopeSpec,
    Scoring,
)
from rtp_core.api.offers import (
    BuildContext,
    EngineLimits,
    Offer,
    Role,
)
from rtp_core.api.plans import (
    TO_BE_DRAWN,
    UNUSABLE_LOGITS,
    FeatureSpan,
    PlanRow,
    RowResult,
    SequenceStart,
    StepPlan,
    StepResult,
)
from rtp_core.api.requests import (
    FinishReason,
    MediaSpan,
    Request,
    RequestTiming,
    TokenEvent,
    TokenLogprob,
)
from rtp_core.api.sampling_params import (
    SamplingParams,
)
from rtp_core.api.scheduling import (
    CachedTokens,
    QueuedRequest,
    SchedulingPolicy,
)
from rtp_core.api.services import (
    Clock,
    StepCosts,
)
from rtp_core.api.speculation import (
    Commit,
    Draft,
    DraftRow,
    Speculator,
    SpeculatorNeeds,
)
from rtp_core.api.structured import (
    StructuredKind,
    StructuredOutput,
)
from rtp_core.api.version import (
    API_VERSION,
)
from rtp_core.api.weights import (
    LoadStats,
    ParameterSpec,
    Placement,
    Shard,
    TensorInfo,
    WeightLoader,
    WeightPlan,
    WeightRule,
    WeightSink,
    WeightTable,
)

__all__ = [
    "API_VERSION",
    "TO_BE_DRAWN",
    "UNUSABLE_LOGITS",
    "AttentionBackend",
    "AttentionPlan",
    "BlockCopy",
    "BoundAttention",
    "BuildContext",
    "CachedTokens",
    "CausalModel",
    "CheckedModel",
    "Clock",
    "Commit",
    "Draft",
    "DraftRow",
    "EarlyFamily",
    "EngineLimits",
    "ExpertsSpec",
    "FeatureSpan",
    "FinishReason",
    "ForwardOutput",
    "GroupDone",
    "HeadNorms",
    "KVEvent",
    "KVFormat",
    "KVFormatId",
    "KVGroup",
    "KVLoad",
    "KVMemory",
    "KVPlane",
    "KVQuality",
    "KVSpace",
    "KVStore",
    "KVTier",
    "KVTransport",
    "LoadStats",
    "MediaItem",
    "MediaPlanner",
    "MediaSpan",
    "ModalityEncoder",
    "ModelFamily",
    "ModelSpec",
    "Offer",
    "ParallelContext",
    "ParameterSpec",
    "Placement",
    "PlanRow",
    "QueuedRequest",
    "QueueingModel",
    "Request",
    "RequestTiming",
    "Role",
    "RopeSpec",
    "RowResult",
    "SamplingParams",
    "SchedulingPolicy",
    "Scoring",
    "SequenceStart",
    "Shard",
    "Speculator",
    "SpeculatorNeeds",
    "StepCosts",
    "StepPlan",
    "StepResult",
    "StructuredKind",
    "StructuredOutput",
    "TensorInfo",
    "TierBlock",
    "TokenEvent",
    "TokenLogprob",
    "WeightLoader",
    "WeightPlan",
    "WeightRule",
    "WeightSink",
    "WeightTable",
    "hookimpl",
]
