"""Models for tests: a tiny random one made here, and the demo model from its package."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TINY = {
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
    "bos_token_id": None,
    "eos_token_id": 257,
    "initializer_range": 0.3,
}


@pytest.fixture(scope="session")
def tiny_hf_model():
    """A random Llama whose vocabulary is 256 bytes and three control tokens."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(7)
    config = transformers.LlamaConfig(vocab_size=259, **TINY)
    return transformers.LlamaForCausalLM(config).eval()


@pytest.fixture(scope="session")
def save_model(tmp_path_factory):
    """Writes a model of that vocabulary: safetensors, configuration, tokenizer, template."""

    def save(model) -> Path:
        directory = tmp_path_factory.mktemp("model")
        model.save_pretrained(directory)
        write_byte_tokenizer(directory)
        return directory

    return save


@pytest.fixture(scope="session")
def tiny_model(tiny_hf_model, save_model) -> Path:
    """The directory of the tiny Llama."""
    return save_model(tiny_hf_model)


def write_byte_tokenizer(directory: Path) -> None:
    """One token a byte, then <|im_start|>, <|im_end|> and <|endoftext|>."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({char: i for i, char in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    control = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
    tokenizer.add_special_tokens([AddedToken(one, normalized=False) for one in control])
    tokenizer.save(str(directory / "tokenizer.json"))
    settings = {"chat_template": TEMPLATE, "eos_token": "<|im_end|>"}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))


@pytest.fixture(scope="session")
def demo_model() -> Path:
    """The demo model's file; fetched with pip where an index is reachable."""
    from rtp_core.config.environment import cache_dir
    from rtp_core.errors import ModelError
    from rtp_core.loading.demo import resolve_model

    try:
        return resolve_model("demo", cache_dir())
    except ModelError as error:
        pytest.skip(f"no demo model: {error}")


@pytest.fixture(scope="session")
def smollm2_reference() -> list[dict]:
    """Prompts with greedy ids and margins; `source` in the file says how they were made."""
    path = Path(__file__).parent / "data" / "smollm2_reference.json"
    return json.loads(path.read_text())["prompts"]
