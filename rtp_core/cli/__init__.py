"""The rtp command."""
