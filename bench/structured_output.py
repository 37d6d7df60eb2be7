"""What a grammar costs: time of a mask over the vocabulary, and tokens a second with and without.

    python bench/structured_output.py [MODEL] [--batch 8] [--output-len 48] [--repeats 5]

Masks are made one after the other, along texts that the grammar allows, drawn at random. Then
batches of free and of constrained text take turns in one engine; the ratio is of the best turns.
The constrained text is JSON that cannot end before `--output-len` tokens.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Iterator

import numpy as np

from rtp_core import LLM, SamplingParams
from rtp_core.api import StructuredOutput
from rtp_core.cli.options import engine_parser, parse_config
from rtp_core.text.structured.grammars import Grammars

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "address": {
            "type": "object",
            "properties": {"street": {"type": "string"}, "zip": {"type": "string"}},
            "required": ["street", "zip"],
        },
        "tags": {"type": "array", "items": {"enum": ["red", "green", "blue"]}},
    },
    "required": ["name", "age", "address", "tags"],
    "additionalProperties": False,
}
LONG = StructuredOutput.of_schema({"type": "array", "items": {"type": "string"}, "minItems": 500})
GRAMMARS = {
    "json_object": StructuredOutput.of_object(),
    "json_schema": StructuredOutput.of_schema(PERSON),
    "regex": StructuredOutput("regex", r"([A-Z][a-z]{1,20} ?){3,40}"),
    "choice": StructuredOutput.of_choices([f"choice {n} of many" for n in range(500)]),
}


def mask_seconds(grammars: Grammars, kind: StructuredOutput, tokens: int) -> Iterator[float]:
    """Of one mask after the other, until the text or `tokens` end."""
    matcher = grammars.matcher(kind)
    rng = random.Random(1)
    for _ in range(tokens):
        began = time.perf_counter()
        mask = matcher.compute_bitmask()
        yield time.perf_counter() - began
        bits = np.unpackbits(np.frombuffer(mask, dtype=np.uint8), bitorder="little")
        matcher.consume_token(int(rng.choice(np.flatnonzero(bits))))
        if matcher.is_stopped():
            return


def rate(llm: LLM, batch: int, length: int, kind: StructuredOutput | None) -> float:
    """Tokens a second of a batch, prompts included."""
    sampling = SamplingParams(
        temperature=0.8, seed=1, max_tokens=length, ignore_eos=True, structured=kind
    )
    prompts = [f"Write a list of things, number {number}." for number in range(batch)]
    began = time.perf_counter()
    answers = llm.generate(prompts, sampling)
    seconds = time.perf_counter() - began
    return sum(len(one.outputs[0].token_ids) for one in answers) / seconds


def main() -> int:
    parser = engine_parser("structured_output", __doc__ or "")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--output-len", type=int, default=48)
    parser.add_argument("--repeats", type=int, default=5)
    arguments, config = parse_config(parser, sys.argv[1:])
    with LLM.from_config(config) as llm:
        info = llm.info
        grammars = Grammars(lambda: llm.tokenizer, info.vocab_size, info.eos_token_ids)
        grammars.matcher(LONG)  # reads the vocabulary too
        vocabulary_s = grammars.counts.seconds
        masks = {}
        for name, kind in GRAMMARS.items():
            took = [one for _ in range(5) for one in mask_seconds(grammars, kind, 200)]
            masks[name] = {
                "mean_ms": round(1e3 * sum(took) / len(took), 4),
                "max_ms": round(1e3 * max(took), 3),
                "n": len(took),
            }
        batch, length = arguments.batch, arguments.output_len
        rate(llm, batch, 4, LONG)
        turns = [
            (rate(llm, batch, length, None), rate(llm, batch, length, LONG))
            for _ in range(arguments.repeats)
        ]
        free, constrained = (max(column) for column in zip(*turns, strict=True))
        result = {
            "vocabulary": info.vocab_size,
            "masks": masks,
            "vocabulary_ms": round(1e3 * vocabulary_s, 1),
            "compile_ms": round(1e3 * (grammars.counts.seconds - vocabulary_s) / len(GRAMMARS), 2),
            "batch": batch,
            "free_tokens_per_s": round(free, 1),
            "constrained_tokens_per_s": round(constrained, 1),
            "ratio": round(constrained / free, 3),
            "engine": llm.stats()["grammars"],
        }
    sys.stdout.write(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
