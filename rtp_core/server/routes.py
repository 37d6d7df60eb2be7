"""Every operation of the server, in one table: routes and /openapi.json are made from it."""

from __future__ import annotations

from functools import partial

from rtp_core.observe.metrics import CONTENT_TYPE
from rtp_core.server import models, status, tokens
from rtp_core.server.chat import chat_completions
from rtp_core.server.completions import completions
from rtp_core.server.openapi import openapi
from rtp_core.server.operating import for_operators
from rtp_core.server.operation import Operation
from rtp_core.server.other_apis import other_apis
from rtp_core.server.page import Page
from rtp_core.server.schema.chat import ChatBody
from rtp_core.server.schema.completion import CompletionBody
from rtp_core.server.schema.tokens import DetokenizeBody, TokenizeBody
from rtp_core.server.service import Service


def operations(service: Service) -> list[Operation]:
    """The API, its description, and the page unless it is switched off."""
    api = (*_generating(service), *_about_the_model(service), *_about_the_server(service))
    page = _page(Page.packaged()) if service.config.server.ui else []
    return [*api, openapi(api, service.config.server.root_path), *page]


def _page(page: Page) -> list[Operation]:
    html = "text/html"
    return [
        Operation("GET", "/", "The page.", page.index, public=True, media_type=html),
        Operation("GET", "/static/{file}", "Its files.", page.static, public=True, media_type=html),
    ]


def _generating(service: Service) -> list[Operation]:
    return [
        Operation(
            "POST",
            "/v1/chat/completions",
            "Answer a conversation.",
            partial(chat_completions, service),
            body=ChatBody,
            needs_model=True,
            streams=True,
        ),
        Operation(
            "POST",
            "/v1/completions",
            "Continue one or more prompts.",
            partial(completions, service),
            body=CompletionBody,
            needs_model=True,
            streams=True,
        ),
        *other_apis(service),
    ]


def _about_the_model(service: Service) -> list[Operation]:
    return [
        Operation(
            "GET",
            "/v1/models",
            "The names the model is served under.",
            partial(models.list_models, service),
            needs_model=True,
        ),
        Operation(
            "GET",
            "/v1/models/{id:path}",
            "One name.",
            partial(models.show_model, service),
            needs_model=True,
        ),
        Operation(
            "POST",
            "/tokenize",
            "Ids of a prompt or a conversation.",
            partial(tokens.tokenize, service),
            body=TokenizeBody,
            needs_model=True,
        ),
        Operation(
            "POST",
            "/detokenize",
            "Text of ids.",
            partial(tokens.detokenize, service),
            body=DetokenizeBody,
            needs_model=True,
        ),
        *for_operators(service),
    ]


def _about_the_server(service: Service) -> list[Operation]:
    health = partial(status.health, service)
    return [
        Operation("GET", "/health", "200 while requests are taken.", health, public=True),
        Operation("GET", "/ping", "As /health.", health, public=True),
        Operation("POST", "/ping", "As /health.", health, public=True),
        Operation("GET", "/version", "The version.", partial(status.version, service), public=True),
        Operation(
            "GET",
            "/metrics",
            "Prometheus metrics.",
            partial(status.metrics, service),
            media_type=CONTENT_TYPE.partition(";")[0],
        ),
        Operation(
            "GET",
            "/v1/plugins",
            "Plugins and effective features.",
            partial(status.plugins, service),
        ),
        Operation(
            "GET",
            "/v1/stats",
            "The page's data, or what of it is new since a time in Unix seconds.",
            partial(status.stats, service),
            query=("since",),
        ),
    ]
