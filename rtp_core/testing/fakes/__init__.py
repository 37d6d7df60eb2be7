"""The smallest honest implementation of every protocol in `rtp_core.api`.

They hold real state and keep their contracts, so a test that uses one exercises behaviour
and not a mock. Those that touch tensors import torch when they are called, not before.
"""

from __future__ import annotations

from rtp_core.testing.fakes.kv import DictTier, ListSpace, PlaneMemory, PlaneStore
from rtp_core.testing.fakes.loading import RecordingSink, WholeFileLoader
from rtp_core.testing.fakes.media import BytePlanner, ConstantEncoder
from rtp_core.testing.fakes.model import (
    PassThroughAttention,
    PassThroughBackend,
    SuccessorFamily,
    SuccessorModel,
)
from rtp_core.testing.fakes.scheduling import QueuePolicy
from rtp_core.testing.fakes.services import FlatCosts, ManualClock
from rtp_core.testing.fakes.speculation import NearestSpeculator, ScriptedSpeculator
from rtp_core.testing.fakes.transport import LoopbackTransport

__all__ = [
    "BytePlanner",
    "ConstantEncoder",
    "DictTier",
    "FlatCosts",
    "ListSpace",
    "LoopbackTransport",
    "ManualClock",
    "NearestSpeculator",
    "PassThroughAttention",
    "PassThroughBackend",
    "PlaneMemory",
    "PlaneStore",
    "QueuePolicy",
    "RecordingSink",
    "ScriptedSpeculator",
    "SuccessorFamily",
    "SuccessorModel",
    "WholeFileLoader",
]
