"""A model's chat template, cut where a question begins and ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rtp_core.errors import ModelError, RequestError
from rtp_core.text.chat_template import ChatTemplate, encode_chat
from rtp_core.text.tokenizer import Tokenizer

_MARK = "\N{WHITE SQUARE}question\N{WHITE SQUARE}"


class ChatForm:
    """Questions as prompts, and the beginning after which the model writes a question itself.

    The latter is Magpie (Xu et al. 2024, arXiv 2406.08464): an aligned model that gets the
    template up to the user's turn goes on with what a user might ask.
    """

    def __init__(self, directory: Path, template: str | None = None) -> None:
        self.tokenizer = Tokenizer.load(directory)
        self._template = ChatTemplate.load(directory, template)

    def prompt(self, question: str) -> list[int]:
        """Ids up to where the answer begins. Raises ModelError for a model without template."""
        try:
            return encode_chat(
                self.tokenizer, self._template, _asks(question), add_generation_prompt=True
            )
        except RequestError as error:
            raise ModelError(f"draft heads learn from chats: {error}") from error

    def beginning(self) -> list[int]:
        """Ids of the template up to the question."""
        try:
            text = self._template.render(_asks(_MARK), add_generation_prompt=True)
        except RequestError as error:
            raise ModelError(f"draft heads learn from chats: {error}") from error
        if text.count(_MARK) != 1:
            raise ModelError("the chat template does not repeat the user's message once")
        return self.tokenizer.encode_chat_text(text[: text.index(_MARK)], None)

    def question(self, token_ids: list[int]) -> str | None:
        """What the model asked, if it is one message: no control tokens inside."""
        if any(one in self.tokenizer.special_ids for one in token_ids):
            return None
        return self.tokenizer.decode(token_ids).strip() or None


def _asks(question: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": question}]
