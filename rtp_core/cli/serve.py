"""`rtp serve [MODEL]`."""

from __future__ import annotations

from collections.abc import Sequence

from rtp_core.cli.options import engine_parser, parse_config
from rtp_core.cli.progress import ProgressBar
from rtp_core.observe.log import use_format


def command(argv: Sequence[str]) -> int:
    """Serve until a signal arrives."""
    parser = engine_parser(
        "serve", "Serve a model over the OpenAI HTTP API, with a page at /.", own_first=False
    )
    _, config = parse_config(parser, argv)
    use_format(config.server.log_format)
    from rtp_core.server.start import serve

    return serve(config, ProgressBar("loading"))
