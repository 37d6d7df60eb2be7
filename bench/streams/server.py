"""``python -m streams.server FOLDER CORE [PROFILE]``: the API process around a ClockEngine.

Prints its address. With PROFILE it profiles the event loop's thread into that file.
"""

from __future__ import annotations

import cProfile
import os
import sys
from dataclasses import replace

from rtp_core.config.schema import EngineConfig
from rtp_core.engine.process_backend import ProcessBackend
from rtp_core.server.listener import bind
from rtp_core.server.start import run


def main() -> None:
    folder, core, *profile = sys.argv[1:]
    os.sched_setaffinity(0, {int(core)})
    config = EngineConfig()
    config = replace(
        config,
        model=replace(config.model, path=folder),
        server=replace(config.server, port=0, shutdown_timeout_s=0.0, max_queued_requests=4096),
    )
    with bind(config.server) as listener:
        backend = ProcessBackend(config, builder="streams.engine:build_engine")
        if not profile:
            run(config, backend, listener)
            return
        with cProfile.Profile() as profiler:
            run(config, backend, listener)
        profiler.dump_stats(profile[0])


if __name__ == "__main__":
    main()
