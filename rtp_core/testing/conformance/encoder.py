"""What every pair of MediaPlanner and ModalityEncoder must keep."""

from __future__ import annotations

import struct
import zlib
from typing import Any

from rtp_core.api import BuildContext, MediaItem, MediaPlanner, ModalityEncoder
from rtp_core.errors import RequestError
from rtp_core.testing.conformance.shape import require_members
from rtp_core.testing.conformance.verdict import Check, Make, raises, require, show
from rtp_core.testing.contexts import build_context

KIND = "image"


def an_offer_builds_a_pair(make: Make) -> None:
    """(MediaPlanner, ModalityEncoder), both complete."""
    built = make(build_context())
    require(
        isinstance(built, tuple) and len(built) == 2,
        "the factory returns (MediaPlanner, ModalityEncoder)",
        repr(built),
        "return both halves as a tuple",
    )
    require_members(built[0], MediaPlanner)
    require_members(built[1], ModalityEncoder)


def digests_name_content(make: Make) -> None:
    """Equal bytes share features and cache blocks; other bytes never do."""
    planner, _ = make(build_context())
    items = [planner.plan(png(seed), KIND) for seed in (1, 1, 2)]
    require(
        items[0] == items[1] and items[0].digest != items[2].digest,
        "equal images give equal items, other images other digests",
        show(items),
        "hash the bytes, and the settings that change the features",
    )
    require(
        all(isinstance(item, MediaItem) and item.num_tokens > 0 for item in items),
        "plan() returns MediaItem with at least one token",
        show(items),
        "count the placeholder tokens from the image's size",
    )


def unusable_media_is_the_clients_fault(make: Make) -> None:
    """Bytes that are no image are refused before anything is encoded."""
    planner, _ = make(build_context())
    for data in (b"", b"not an image at all", png(1)[:40]):
        raises(
            lambda data=data: planner.plan(data, KIND),
            (RequestError,),
            f"plan() of {len(data)} unusable bytes raises RequestError",
            "catch the decoder's errors and raise RequestError with the reason",
        )


def features_fit_the_plan(make: Make) -> None:
    """[num_tokens, hidden_size] an item, in the order of the items, finite."""
    context = build_context()
    planner, encoder = make(context)
    data = [png(3), png(4)]
    items = [planner.plan(one, KIND) for one in data]
    features = encoder.encode(items, data)
    hidden = _hidden(context)
    wanted = [(item.num_tokens, hidden) for item in items]
    require(
        [tuple(one.shape) for one in features] == wanted,
        f"encode() of 2 items gives {wanted}",
        show(tuple(one.shape) for one in features),
        "encode every item as a whole, and project to context.model.hidden_size",
    )
    finite = all(bool(one.isfinite().all()) for one in features)
    require(finite, "features are finite", "some are not", "check the preprocessing")
    turned = encoder.encode(items[::-1], data[::-1])
    close = all(
        float((one.float() - other.float()).abs().max()) <= 1e-2
        for one, other in zip(features, list(turned)[::-1], strict=True)
    )
    require(
        close,
        "an item's features do not depend on its place in the batch",
        "they changed when the batch was turned round",
        "mask padding, and keep the order of the items",
    )


CHECKS: tuple[Check, ...] = (
    an_offer_builds_a_pair,
    digests_name_content,
    unusable_media_is_the_clients_fault,
    features_fit_the_plan,
)


def png(seed: int, size: int = 32) -> bytes:
    """A valid RGB PNG of size x size pixels whose content depends on `seed`."""
    rows = b"".join(
        b"\0" + bytes((seed * 37 + x * 7 + y * 3 + c * 50) % 256 for x in range(size)
                      for c in range(3))
        for y in range(size)
    )  # fmt: skip
    header = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*one) for one in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + checksum


def _hidden(context: BuildContext) -> Any:
    return None if context.model is None else context.model.hidden_size
