"""Which libraries compute the answers, and in which version: read from what is installed, without importing any of it."""

import functools
import platform
from importlib.metadata import PackageNotFoundError, version

LIBRARIES = ("torch", "transformers", "peft", "tokenizers", "bitsandbytes")


@functools.cache
def library_versions() -> dict[str, str]:
    """Name to version, Python included; what is not installed is left out."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
