"""On what a report was made."""

import importlib.metadata
import platform

_PACKAGES = ("keras_compress", "keras", "tensorflow", "ai-edge-litert", "numpy")


def environment() -> dict[str, str]:
    """Versions by name, and the system."""
    system = f"{platform.system()} {platform.machine()}"
    return versions_of(_PACKAGES) | {"system": system}


def versions_of(packages) -> dict[str, str]:
    """Python's version and the packages'; one that is not installed is left out."""
    found = {"Python": platform.python_version()}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
