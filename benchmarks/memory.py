"""Memory of converting a PyTorch model of more than 2 GB, against a multiple of its weights.

python benchmarks/memory.py WORK [FORMAT ...]    to ONNX and SavedModel by default

The model is a Python reference with its weights as safetensors. What is compared with the limit is
the resident memory of the largest of the processes that the command runs one after the other,
validation included.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

# In bytes, and multiples of the weights.
BESIDE, TIMES_WEIGHTS = 1 << 30, 2.2

_NET = '''
import torch
from torch import nn

WIDTH, ROWS, LAYERS = 4096, 40_000, 25


class Large(nn.Module):
    """An embedding and a chain of layers, as language models have them."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(ROWS, WIDTH)
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS))
        self.head = nn.Linear(WIDTH, 16)

    def forward(self, ids):
        x = self.table(ids)
        for layer in self.layers:
            x = x + torch.relu(layer(x))
        return self.head(x)


def build():
    return Large()
'''
_MAKE = """
import sys
sys.path.insert(0, sys.argv[1])
import net, torch
from safetensors.torch import save_file
torch.manual_seed(0)
save_file(net.build().state_dict(), sys.argv[2])
"""


def main(work: Path, formats: list[str]) -> int:
    """Print a line for each format; return how many are above the limit."""
    work.mkdir(parents=True, exist_ok=True)
    weights = work / "large.safetensors"
    (work / "net.py").write_text(_NET)
    if not weights.exists():
        subprocess.run([sys.executable, "-c", _MAKE, str(work), str(weights)], check=True)
    limit = BESIDE + TIMES_WEIGHTS * weights.stat().st_size
    return sum(_measured(work, weights, target, limit) for target in formats)


def _measured(work: Path, weights: Path, target: str, limit: float) -> bool:
    command = [str(Path(sys.executable).with_name("modelpack")), "convert", "--quiet"]
    command += [f"{work / 'net.py'}:build", "--weights", str(weights), "--to", target]
    command += ["--input", "ids:int64[batch,8]", "-o", str(work / target)]
    begin = time.perf_counter()
    peak = largest_process(command)
    print(
        f"{weights.stat().st_size / 1e9:.2f} GB of weights to {target}: peak of a process "
        f"{peak / 1e9:.2f} GB (limit {limit / 1e9:.2f}), {time.perf_counter() - begin:.0f} s",
        flush=True,
    )
    return peak > limit


def largest_process(command: list[str]) -> int:
    """Run a command; the largest resident memory of one of its processes, in bytes.

    Raises:
        RuntimeError: it failed.
    """
    import psutil

    process = psutil.Popen(command, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""})
    peak = 0
    while process.poll() is None:
        peak = max(peak, _largest(process))
        time.sleep(0.05)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    return peak


def _largest(process: Any) -> int:
    """Of processes that have just ended, nothing is known any more."""
    import psutil

    try:
        processes = [process, *process.children(recursive=True)]
        return max(item.memory_info().rss for item in processes)
    except psutil.NoSuchProcess:
        return 0


if __name__ == "__main__":
    sys.exit(min(main(Path(sys.argv[1]).resolve(), sys.argv[2:] or ["onnx", "savedmodel"]), 1))
