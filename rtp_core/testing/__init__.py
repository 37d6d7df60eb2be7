"""For plugin authors: fakes, conformance suites and the `--rtp-plugin` option of pytest."""
