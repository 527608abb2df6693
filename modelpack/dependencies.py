"""Which extra brings which library, and what is installed here."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

DISTRIBUTION = "modelpack-cli"

# The libraries of each extra whose presence decides whether its routes work, by
# distribution name. pyproject.toml holds the version ranges.
EXTRAS = {
    "": (
        "typer",
        "rich",
        "pyyaml",
        "msgspec",
        "psutil",
        "numpy",
        "ml-dtypes",
        "onnx",
        "onnxruntime",
    ),
    "keras": ("tensorflow-cpu", "keras", "tf2onnx"),
    "torch": ("torch", "onnxscript", "safetensors"),
    "transformers": ("transformers",),
    "sklearn": ("scikit-learn", "skl2onnx", "skops", "pandas"),
    "boosters": ("xgboost-cpu", "lightgbm", "catboost"),
    "tflite": ("ai-edge-litert", "ai-edge-quantizer"),
}

# Distributions that provide the same modules as the one listed above.
_ALTERNATIVES = {"tensorflow-cpu": ("tensorflow",), "xgboost-cpu": ("xgboost",)}

_EXTRA_OF_ADAPTER = {
    "keras": "keras",
    "tensorflow": "keras",
    "torch": "torch",
    "sklearn": "sklearn",
    "tflite": "tflite",
}


def installed(distribution: str) -> str:
    """Return the installed version of a distribution; empty when it is absent."""
    for name in (distribution, *_ALTERNATIVES.get(distribution, ())):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return ""


def versions(*distributions: str) -> dict[str, str]:
    """Return the installed versions by distribution name, those absent left out."""
    return {name: found for name in distributions if (found := installed(name))}


def install_hint(extra: str) -> str:
    """Return the command that installs an extra."""
    target = f"{DISTRIBUTION}[{extra}]" if extra else DISTRIBUTION
    return f"pip install '{target}'"


def extra_for(entry: str) -> str:
    """Return the command that installs what an adapter entry ``module:function`` imports."""
    adapter = entry.partition(":")[0].rpartition(".")[2]
    return install_hint(_EXTRA_OF_ADAPTER.get(adapter, ""))
