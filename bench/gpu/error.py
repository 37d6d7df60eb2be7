"""How far whole steps' logits are from float32, beside torch's own bfloat16.

Error: the norm of the difference over the norm of the float32 logits, over all rows compared.
The reference and the plain bfloat16 run read each text as one prompt; the engine's first logits
come from its prompt step, the others from its captured programs for decoding.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from typing import Any, cast

import torch

from gpu import plain
from gpu.inside import programs_of
from gpu.session import Session, build, configuration, prompt, release
from rtp_core.engine.prepare import Prepared, prepare
from rtp_core.execution.device.frame import StepShape
from rtp_core.loading.dummy import DummyLoader
from rtp_core.loading.load import load_weights

LAYERS, LENGTH, OUTPUT = 8, 120, 8
SECTIONS = {"max_model_len": 2048, "scheduling": {"max_num_seqs": 64}}
Texts = tuple[torch.Tensor, torch.Tensor]
"""ids [batch, length + output - 1]; float32 logits [batch, output, vocab], on the CPU."""


def error(shape: Mapping[str, Any], batches: list[int]) -> dict[str, dict[str, float]]:
    """By batch, for the shape cut to LAYERS layers of full width."""
    cut = {**shape, "num_hidden_layers": min(LAYERS, shape["num_hidden_layers"])}
    engine = build(cut, **SECTIONS)
    texts = {batch: engine_logits(Session(engine, cut["vocab_size"]), batch) for batch in batches}
    release(engine)
    prepared, parameters = _weights(cut)
    return {f"error {batch}": compare(*texts[batch], parameters, prepared) for batch in batches}


def engine_logits(session: Session, batch: int) -> Texts:
    """Logits of every step, checked to belong to the tokens that were delivered."""
    programs, steps = programs_of(session.engine), []
    run = programs.run

    def recorded(shape: StepShape, num_drawing: int) -> torch.Tensor:
        logits = run(shape, num_drawing)
        steps.append(logits[:, : session.vocab].to("cpu", torch.float32, copy=True))
        return logits

    programs.run = recorded  # pyright: ignore[reportAttributeAccessIssue]
    seeds = range(20_000 + 100 * batch, 20_000 + 100 * batch + batch)
    answers = list(session.texts(seeds, LENGTH, OUTPUT).values())
    programs.run = run  # pyright: ignore[reportAttributeAccessIssue]
    found = torch.stack(steps, 1)
    drawn = torch.tensor(answers)
    assert found.shape[:2] == drawn.shape, "prompts of a batch must share one step"
    assert (found.argmax(-1) == drawn).all(), "logits and tokens are not of the same rows"
    prompts = torch.tensor([prompt(seed, LENGTH, session.vocab) for seed in seeds])
    return torch.cat((prompts, drawn[:, :-1]), 1), found


def compare(
    ids: torch.Tensor, found: torch.Tensor, parameters: plain.Parameters, prepared: Prepared
) -> dict[str, float]:
    """Relative errors of the engine and of bfloat16 in plain torch, of prompts and of decoding."""
    torch.set_float32_matmul_precision("highest")
    device = parameters["embed"].device
    sums = torch.zeros(2, 2, dtype=torch.float64)
    norms = torch.zeros(2, dtype=torch.float64)
    for text, own in zip(ids.to(device), found, strict=True):
        first = len(text) - len(own)
        exact, eager = (
            plain.logits(text, parameters, prepared.spec, dtype, first)
            for dtype in (torch.float32, torch.bfloat16)
        )
        for part, at in enumerate((slice(0, 1), slice(1, None))):
            norms[part] += exact[at].double().square().sum().cpu()
            for number, other in enumerate((own.to(device), eager)):
                sums[number, part] += (other[at] - exact[at]).double().square().sum().cpu()
    (prompt_own, decode_own), (prompt_eager, decode_eager) = (sums / norms).sqrt().tolist()
    return {
        "prompt_error": prompt_own,
        "prompt_bf16_error": prompt_eager,
        "prompt_ratio": prompt_own / prompt_eager,
        "decode_error": decode_own,
        "decode_bf16_error": decode_eager,
        "decode_ratio": decode_own / decode_eager,
    }


def _weights(shape: Mapping[str, Any]) -> tuple[Prepared, plain.Parameters]:
    """The engine's random weights once more: they are the same at each load."""
    with tempfile.TemporaryDirectory() as folder:
        prepared = prepare(configuration(shape, folder, **SECTIONS))
    loaded, _ = load_weights(prepared.plan, DummyLoader(), "cuda", lambda _: None)
    return prepared, cast("plain.Parameters", loaded)
