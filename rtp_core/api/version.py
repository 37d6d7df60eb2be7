"""Version of the plugin contract, independent of the package version.

A new hook or optional protocol method raises the minor; a changed signature the major.
"""

from __future__ import annotations

API_VERSION: tuple[int, int] = (1, 2)
