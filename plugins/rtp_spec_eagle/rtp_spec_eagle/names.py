"""Names of a head's tensors in all published layouts, as one."""

from __future__ import annotations

from collections.abc import Collection

_LAYERS = ("midlayer.", "layers.0.")
_LEGACY_NORMS = ("aux_norm_low", "aux_norm_mid", "aux_norm_high")


class Names:
    """Finds a tensor by what it is. `version` 3 or 1 goes by what the layer normalises."""

    def __init__(self, tensors: Collection[str]) -> None:
        self._tensors = tensors
        self._layer = next(
            (one for one in _LAYERS if f"{one}self_attn.q_proj.weight" in tensors), _LAYERS[0]
        )

    @property
    def version(self) -> int:
        """EAGLE-3 normalises embedding and state before its layer, EAGLE-1 and 2 neither."""
        return 3 if f"{self._layer}hidden_norm.weight" in self._tensors else 1

    @property
    def has_fc_norm(self) -> bool:
        """Whether each captured state has a norm of its own."""
        return self.fc_norm(0) in self._tensors

    def layer(self, part: str) -> str:
        """A tensor of the one decoder layer."""
        return self._layer + part

    def fc_norm(self, index: int) -> str:
        """The norm of one captured state."""
        new = f"fc_norm.{index}.weight"
        if new in self._tensors or index >= len(_LEGACY_NORMS):
            return new
        return f"{_LEGACY_NORMS[index]}.weight"
