"""`python -m rtp_core` is `rtp`."""

from __future__ import annotations

import sys

from rtp_core.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
