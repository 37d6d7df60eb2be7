"""What every ModelFamily and the model it builds must keep."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch

from rtp_core.api import (
    CausalModel,
    ModelFamily,
    ModelSpec,
    ParallelContext,
    PlanRow,
    WeightTable,
)
from rtp_core.errors import ModelError
from rtp_core.execution.torch_attention import TorchAttention
from rtp_core.testing.checkpoints import LLAMA_CONFIG
from rtp_core.testing.conformance.shape import has_members, require_members
from rtp_core.testing.conformance.verdict import Check, Make, raises, require, show
from rtp_core.testing.contexts import build_context
from rtp_core.testing.fakes.kv import PlaneStore
from rtp_kernels.registry import resolver

Config = Mapping[str, Any]
BLOCK = 16
NUM_BLOCKS = 8
_DTYPE = "float32"


def the_spec_describes_the_configuration(make: Make, model_config: Config = LLAMA_CONFIG) -> None:
    """Sizes are positive and fit together; dtype and fingerprint are passed on."""
    spec = _spec(make, model_config)
    sizes = {
        name: getattr(spec, name)
        for name in ("num_layers", "hidden_size", "num_heads", "num_kv_heads", "head_dim",
                     "vocab_size", "max_model_len")
    }  # fmt: skip
    require(
        all(type(size) is int and size > 0 for size in sizes.values())
        and spec.num_heads % spec.num_kv_heads == 0,
        "sizes are positive integers, and num_kv_heads divides num_heads",
        str(sizes),
        "read them from the configuration, with the defaults Hugging Face uses",
    )
    require(
        (spec.dtype, spec.fingerprint) == (_DTYPE, "conformance"),
        "spec.dtype and spec.fingerprint are the arguments",
        f"{spec.dtype!r}, {spec.fingerprint!r}",
        "pass both on",
    )
    require(
        spec.rope.rotary_dim % 2 == 0 and 0 < spec.rope.rotary_dim <= spec.head_dim,
        f"rope.rotary_dim is even and at most head_dim {spec.head_dim}",
        str(spec.rope.rotary_dim),
        "multiply head_dim by partial_rotary_factor",
    )


def equal_configurations_give_equal_specs(make: Make, model_config: Config = LLAMA_CONFIG) -> None:
    """The specification is a function of its arguments."""
    first, second = _spec(make, model_config), _spec(make, model_config)
    require(first == second, "two calls of spec() agree", f"{first} and {second}", "keep no state")


def kv_groups_cover_every_layer_once(make: Make, model_config: Config = LLAMA_CONFIG) -> None:
    """A layer that attends has KV in one group."""
    spec = _spec(make, model_config)
    layers = [layer for group in spec.kv_groups for layer in group.layers]
    require(
        sorted(layers) == list(range(spec.num_layers)),
        f"kv_groups hold the layers 0 … {spec.num_layers - 1}, each once",
        show(layers, 16),
        "put layers of equal geometry and window into one KVGroup",
    )


def missing_keys_are_named(make: Make, model_config: Config = LLAMA_CONFIG) -> None:
    """A configuration without a size cannot be guessed."""
    for key in ("num_hidden_layers", "hidden_size", "vocab_size"):
        smaller = {name: value for name, value in model_config.items() if name != key}
        error = raises(
            partial(_spec, make, smaller),
            (ModelError,),
            f"spec() without {key} raises ModelError",
            "check the required keys first",
        )
        require(
            key in str(error), f"the error names {key}", str(error), "name the key in the message"
        )


def weights_cover_every_row_once(make: Make, model_config: Config = LLAMA_CONFIG) -> None:
    """Rules fill each row of each parameter exactly once, and nothing else."""
    spec = _spec(make, model_config)
    table = make(build_context(model=None)).weights(spec)
    names = Counter(parameter.name for parameter in table.parameters)
    require(
        all(count == 1 for count in names.values()),
        "parameter names are distinct",
        show(name for name, count in names.items() if count > 1),
        "name a parameter once",
    )
    strangers = {rule.destination for rule in table.rules} - set(names)
    require(
        not strangers,
        "each rule's destination is a parameter of the table",
        f"unknown: {show(strangers)}",
        "add a ParameterSpec for it",
    )
    for parameter in table.parameters:
        covered = _covered_rows(table, parameter.name)
        require(
            covered == list(range(parameter.shape[0])),
            f"{parameter.name}: rows 0 … {parameter.shape[0] - 1} are filled once",
            f"filled: {show(covered)}",
            "let row_offset and num_rows of its rules tile the parameter",
        )
        require(
            parameter.dtype == spec.dtype,
            f"{parameter.name} is {spec.dtype}, as the specification",
            parameter.dtype,
            "declare parameters in spec.dtype",
        )


def the_model_answers_in_shape(make: Make, model_config: Config = LLAMA_CONFIG) -> None:
    """hidden [tokens, hidden_size], logits float32 [rows, vocab_size], all finite."""
    small = _Small(make, model_config)
    require_members(small.model, CausalModel)
    ids = list(range(2, 23))
    hidden = small.forward(ids, 0)
    logits = small.logits(hidden[-3:])
    spec = small.spec
    require(
        tuple(hidden.shape) == (len(ids), spec.hidden_size),
        f"forward() of {len(ids)} tokens gives hidden {(len(ids), spec.hidden_size)}",
        str(tuple(hidden.shape)),
        "return one row a token, before the final norm",
    )
    require(
        tuple(logits.shape) == (3, spec.vocab_size)
        and logits.dtype == torch.float32
        and bool(torch.isfinite(logits).all()),
        f"logits() of 3 rows gives finite float32 {(3, spec.vocab_size)}",
        f"{tuple(logits.shape)} of {logits.dtype}, "
        f"{int((~torch.isfinite(logits)).sum())} not finite",
        "apply the final norm and the head, and convert to float32",
    )


def chunks_equal_the_whole(make: Make, model_config: Config = LLAMA_CONFIG) -> None:
    """The same tokens in pieces give the same logits."""
    ids = list(range(2, 40))
    whole = _Small(make, model_config)
    expected = whole.logits(whole.forward(ids, 0))
    pieces = _Small(make, model_config)
    got = torch.cat(
        [pieces.logits(pieces.forward(ids[at : at + 7], at)) for at in range(0, len(ids), 7)]
    )
    worst = float((expected - got).abs().max())
    require(
        worst <= 1e-4,
        "logits of chunks of 7 tokens equal those of the whole within 1e-4",
        f"they differ by {worst:.3g}",
        "keep no state in the model: positions and keys come from the attention plan",
    )


def states_are_captured_when_asked(make: Make, model_config: Config = LLAMA_CONFIG) -> None:
    """Speculators ask for the states that enter a layer."""
    small = _Small(make, model_config)
    last = small.spec.num_layers - 1
    plain = small.run([3, 4, 5], 0)
    asked = small.run([3, 4, 5], 0, capture=(0, last))
    require(
        not plain.captured and sorted(asked.captured) == sorted({0, last}),
        f"captured has the layers asked for: none, then {sorted({0, last})}",
        f"{sorted(plain.captured)}, then {sorted(asked.captured)}",
        "record the input of each layer in capture_layers",
    )
    require(
        all(one.shape == asked.hidden.shape for one in asked.captured.values()),
        f"captured states are {tuple(asked.hidden.shape)}",
        show(tuple(one.shape) for one in asked.captured.values()),
        "capture the whole residual stream",
    )


def wanted_tokens_alone_are_given(make: Make, model_config: Config = LLAMA_CONFIG) -> None:
    """Runners ask for the tokens whose logits they need."""
    small = _Small(make, model_config)
    ids = list(range(2, 23))
    whole = small.forward(ids, 0)
    for picks in ((20, 3, 3), ()):
        wanted = torch.tensor(picks, dtype=torch.int64)
        got = small.run(ids, 0, wanted=wanted).hidden
        same = got.shape == whole[wanted].shape and torch.allclose(got, whole[wanted], atol=1e-5)
        require(
            same,
            f"hidden of wanted={picks} equals those rows of all, within 1e-5",
            f"{tuple(got.shape)}, other values" if len(got) else str(tuple(got.shape)),
            "take the rows in the order of `wanted`, at the last layer or after it",
        )


CHECKS: tuple[Check, ...] = (
    has_members(ModelFamily),
    the_spec_describes_the_configuration,
    equal_configurations_give_equal_specs,
    kv_groups_cover_every_layer_once,
    missing_keys_are_named,
    weights_cover_every_row_once,
    the_model_answers_in_shape,
    chunks_equal_the_whole,
    states_are_captured_when_asked,
    wanted_tokens_alone_are_given,
)


class _Small:
    """The family's model with random weights, on paged memory of one sequence."""

    def __init__(self, make: Make, config: Config) -> None:
        family: ModelFamily = make(build_context(model=None))
        self.spec = family.spec(config, _DTYPE, "conformance")
        generator = torch.Generator().manual_seed(1)
        parameters = {
            one.name: torch.randn(one.shape, generator=generator) * 0.2
            for one in family.weights(self.spec).parameters
        }
        self.model = family.build(self.spec, parameters, ParallelContext(), resolver("cpu", _DTYPE))
        groups = self.spec.kv_groups
        memory = PlaneStore().open(groups, [NUM_BLOCKS] * len(groups), BLOCK, "cpu")
        self._attention = TorchAttention("cpu").bind(self.spec, memory, BLOCK)

    def run(
        self,
        ids: list[int],
        start: int,
        capture: tuple[int, ...] = (),
        wanted: torch.Tensor | None = None,
    ) -> Any:
        blocks = tuple(list(range(NUM_BLOCKS)) for _ in self.spec.kv_groups)
        plan = self._attention.plan([PlanRow("a", ids, start, 0, True, blocks)])
        with torch.inference_mode():
            return self.model.forward(torch.tensor(ids), self._attention, plan, capture, wanted)

    def forward(self, ids: list[int], start: int) -> torch.Tensor:
        return self.run(ids, start).hidden

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return self.model.logits(hidden)


def _spec(make: Make, config: Config) -> ModelSpec:
    return make(build_context(model=None)).spec(config, _DTYPE, "conformance")


def _covered_rows(table: WeightTable, name: str) -> list[int]:
    rules = [rule for rule in table.rules if rule.destination == name]
    rows = [
        row for rule in rules for row in range(rule.row_offset, rule.row_offset + rule.num_rows)
    ]
    return sorted(rows)
