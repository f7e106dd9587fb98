"""ganatomy: dissection and debugging of image generators. The science is in `ganatomy.dissect`."""

# Nothing is imported before it is needed. A test runner may import this file a second time under the name of the
# checkout's folder; so it must hold nothing but names.
from importlib import import_module, metadata

__all__ = ["dissect", "hooks", "reports", "segmenters"]


def __getattr__(name: str) -> object:
    if name == "__version__":
        return metadata.version("ganatomy")
    if name in __all__:
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
