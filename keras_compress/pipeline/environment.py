"""On what a report was made."""

import importlib.metadata
import platform

_PACKAGES = ("keras_compress", "keras", "tensorflow", "ai-edge-litert", "numpy")


def environment() -> dict[str, str]:
    """Versions by name; a package that is not installed is left out."""
    found = {"Python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found | {"system": f"{platform.system()} {platform.machine()}"}
