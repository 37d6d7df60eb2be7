"""What the core trains, measures and publishes of an EAGLE-3 head."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional

from rtp_core.api import (
    HeadFiles,
    Noise,
    Prediction,
    TargetBatch,
    TargetText,
    TrainingTarget,
)
from rtp_core.errors import ModelError
from rtp_spec_eagle.training.attention import RowAttention, TestTimeAttention, causal
from rtp_spec_eagle.training.module import ROPE_THETA, Eagle3, HeadShape

_DEEPENING = ((0.25, 1), (0.5, 3), (1.0, 5))
"""(until which share of the training, steps of the training-time test). Shallow steps are
several times cheaper and teach the first draft, on which all others stand."""
_NAMES = {
    "midlayer.self_attn.q_proj": "q_proj",
    "midlayer.self_attn.k_proj": "k_proj",
    "midlayer.self_attn.v_proj": "v_proj",
    "midlayer.self_attn.o_proj": "o_proj",
    "midlayer.mlp.gate_proj": "gate_proj",
    "midlayer.mlp.up_proj": "up_proj",
    "midlayer.mlp.down_proj": "down_proj",
    "midlayer.input_layernorm": "input_layernorm",
    "midlayer.hidden_norm": "hidden_norm",
    "midlayer.post_attention_layernorm": "post_attention_layernorm",
    "norm": "norm",
    "lm_head": "lm_head",
    "fc": "fc",
}
"""Published names (SafeAILab's layout), without ``.weight``, and ours."""
_SMALLEST_SCALE = 1e-3
_DTYPE = torch.bfloat16


class Eagle3Head:
    """See `rtp_core.api.DraftHead`."""

    learning_rate = 1e-3
    max_depth = 7

    def __init__(self, module: Eagle3, target: TrainingTarget, layers: Sequence[int]) -> None:
        self.module = module
        self._target = target
        self._layers = tuple(layers)

    def predict(self, batch: TargetBatch, progress: float) -> Iterator[Prediction]:
        """Row i of step k is held against the target's law after position i + 1 + k."""
        module, length = self.module, batch.token_ids.shape[1]
        row = torch.arange(length, device=batch.token_ids.device)
        begun = row >= batch.prompt_lengths[:, None] - 1
        attend = TestTimeAttention()
        state = module.fuse(batch.captured)
        for depth in range(steps_at(progress)):
            ahead = 1 + depth
            tokens = functional.pad(batch.token_ids[:, ahead:], (0, min(ahead, length)))
            wanted = functional.pad(batch.label_of[:, ahead:], (0, min(ahead, length)), value=-1)
            state = module.layer(self._embed(tokens), state, row + depth, attend)
            used = ((wanted >= 0) & begun).flatten().nonzero().squeeze(1)
            logits = module.logits(state.flatten(0, 1)[used])
            yield Prediction(depth, logits, wanted.flatten()[used])

    def drafts(
        self, text: TargetText, first: int, depth: int, temperature: float, noise: Noise | None
    ) -> torch.Tensor:
        """See `rtp_core.api.DraftHead`; the first draft comes from true states, as when serving."""
        module, ids = self.module, text.token_ids
        kept: list[tuple[torch.Tensor, torch.Tensor]] = []

        def keep(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            kept.append((k, v))
            return causal(q, k, v)

        fused = module.fuse(text.captured[:-1])
        position = torch.arange(len(ids) - 1, device=ids.device)
        out = module.layer(self._embed(ids[1:]), fused, position, keep)
        rows = torch.arange(first, len(ids) - 2, device=ids.device)
        attend, state, found = RowAttention(*kept[0], rows), out[rows], []
        for ahead in range(depth):
            scores = module.logits(state).float()
            if noise is not None:
                scores = scores / temperature + noise(rows + 2 + ahead, module.vocab_ids)
            found.append(module.vocab_ids[scores.argmax(-1)])
            if ahead + 1 < depth:
                state = module.layer(self._embed(found[-1]), state, rows + 1 + ahead, attend)
        return torch.stack(found, dim=1)

    def files(self) -> HeadFiles:
        """SafeAILab's layout: `d2t` holds offsets from draft ids to target ids."""
        module, spec = self.module, self._target.spec
        with torch.no_grad():
            weights = {
                f"{name}.weight": getattr(module, own).to(_DTYPE) for name, own in _NAMES.items()
            }
            weights["fc.weight"] = (module.fc / module.scale).to(_DTYPE)
        ids = module.vocab_ids
        allowed = torch.zeros(spec.vocab_size, dtype=torch.bool, device=ids.device)
        allowed[ids] = True
        offsets = ids - torch.arange(len(ids), device=ids.device)
        return HeadFiles(
            "model.safetensors", self._config(), {**weights, "d2t": offsets, "t2d": allowed}
        )

    def _config(self) -> dict[str, Any]:
        spec, shape = self._target.spec, self.module.shape
        eagle: dict[str, Any] = {"use_aux_hidden_state": True}
        if self._layers != usual_layers(spec.num_layers):
            eagle["eagle_aux_hidden_state_layer_ids"] = list(self._layers)
        return {
            "architectures": ["LlamaForCausalLMEagle3"],
            "model_type": "llama",
            "hidden_size": shape.hidden,
            "intermediate_size": shape.intermediate,
            "num_hidden_layers": 1,
            "num_attention_heads": shape.heads,
            "num_key_value_heads": shape.kv_heads,
            "head_dim": shape.head_dim,
            "hidden_act": "silu",
            "rms_norm_eps": shape.norm_eps,
            "rope_theta": ROPE_THETA,
            "max_position_embeddings": 2048,
            "vocab_size": spec.vocab_size,
            "draft_vocab_size": shape.draft_vocab,
            "target_hidden_size": shape.target_hidden,
            "attention_bias": False,
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
            "eagle_config": eagle,
        }

    def _embed(self, token_ids: torch.Tensor) -> torch.Tensor:
        return functional.embedding(token_ids, self._target.embed)


def steps_at(progress: float) -> int:
    """Steps of the training-time test when so much of a training is over."""
    return next((steps for until, steps in _DEEPENING if progress < until), _DEEPENING[-1][1])


def usual_layers(num_layers: int) -> tuple[int, ...]:
    """Whose entering states are read where a head does not say: low, middle, high."""
    return 2, num_layers // 2, num_layers - 3


def shape_of(target: TrainingTarget, captured: int, draft_vocab: int) -> HeadShape:
    """A layer like the target's."""
    spec = target.spec
    return HeadShape(
        hidden=spec.hidden_size,
        heads=spec.num_heads,
        kv_heads=spec.num_kv_heads,
        head_dim=spec.head_dim,
        intermediate=spec.intermediate_size,
        norm_eps=spec.norm_eps,
        target_hidden=spec.hidden_size,
        captured=captured,
        draft_vocab=draft_vocab,
    )


@torch.no_grad()
def new_module(
    target: TrainingTarget, layers: int, vocab_ids: torch.Tensor, states: torch.Tensor
) -> Eagle3:
    """Untrained, it reads the highest captured state through the target's own head."""
    spec = target.spec
    module = Eagle3(shape_of(target, layers, len(vocab_ids))).to(vocab_ids.device)
    module.vocab_ids.copy_(vocab_ids)
    module.scale.copy_(states.float().std(dim=0, unbiased=False).clamp_min(_SMALLEST_SCALE))
    high = slice((layers - 1) * spec.hidden_size, None)
    module.fc.mul_(0.5)
    module.fc[:, high] += torch.eye(spec.hidden_size, device=vocab_ids.device)
    scale = module.scale[high]
    module.norm.copy_(target.norm.float() * scale / scale.square().mean().sqrt())
    module.lm_head.copy_(target.head[vocab_ids].float())
    return module


@torch.no_grad()
def loaded_module(
    target: TrainingTarget, layers: int, tensors: Mapping[str, torch.Tensor]
) -> Eagle3:
    """From published tensors. Raises ModelError naming those that are missing."""
    missing = [f"{name}.weight" for name in _NAMES if f"{name}.weight" not in tensors]
    if missing or "d2t" not in tensors:
        raise ModelError(f"no EAGLE-3 head: {', '.join(missing) or 'd2t'} is missing")
    offsets, device = tensors["d2t"], target.embed.device
    module = Eagle3(shape_of(target, layers, len(offsets)))
    module.vocab_ids.copy_(offsets + torch.arange(len(offsets)))
    for name, own in _NAMES.items():
        getattr(module, own).copy_(tensors[f"{name}.weight"].float())
    return module.to(device)
