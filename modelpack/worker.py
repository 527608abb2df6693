"""Runs steps in child processes, with limits on their time and memory.

The parent half is `WorkerPool`. The child half (`python -m modelpack.worker`) reads one
JSON job per line from its standard input, calls the function the job names, and answers
with one JSON line on what was its standard output. Everything that libraries print, to
either stream and from any language, goes to a log file instead, and is shown when the
step fails. A worker stays up between jobs, so that a framework is imported once a command.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import importlib
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import traceback
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from modelpack.errors import (
    ConversionError,
    InputError,
    MissingDependencyError,
    ModelpackError,
    WorkerError,
    error_types,
)

T = TypeVar("T")
logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.05
_LOG_TAIL = 8000  # characters of a worker's log that an error carries
# How the dump of a crash begins, as `faulthandler` writes it.
_STACK_DUMP = "Fatal Python error"
_DEFAULT_TIMEOUT = 3600.0
_DEFAULT_MEMORY_SHARE = 0.95

# What every worker is started with. Hash seeds and alternative kernels change the last bits
# of results, and results are written down: so they are settled here.
_ENVIRONMENT = {
    # Keras on TensorFlow, whatever the user's own configuration says: that is what is converted.
    "KERAS_BACKEND": "tensorflow",
    "TF_USE_LEGACY_KERAS": "0",
    "PYTHONHASHSEED": "0",
    "PYTHONUNBUFFERED": "1",
    "PYTHONIOENCODING": "utf-8",
    "NO_COLOR": "1",
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "CUDA_VISIBLE_DEVICES": "-1",
}


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of each step.

    Attributes:
        timeout: seconds of wall time.
        memory: bytes of resident memory of the worker and its children; None for
            95 % of what is available when the worker starts.
    """

    timeout: float = _DEFAULT_TIMEOUT
    memory: int | None = None


class WorkerPool:
    """Worker processes by key; a key's worker is started at its first job.

    Use as a context manager: leaving it ends every worker.

    Args:
        scratch: existing directory for logs and temporary files, of workers and of the
            verb that uses them.
        limits: limits of each step.
    """

    def __init__(self, scratch: Path, limits: Limits) -> None:
        self.scratch = scratch
        self._limits = limits
        self._workers: dict[str, _Worker] = {}
        self._started = 0

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *exc: object) -> None:
        for worker in self._workers.values():
            worker.kill()
        self._workers.clear()

    def call(
        self,
        key: str,
        entry: str,
        returns: type[T],
        *args: object,
        failure: type[ModelpackError] = ConversionError,
    ) -> T:
        """Call ``entry`` (``module:function``) in the worker of ``key`` and return its result.

        Arguments and result are plain values and dataclasses of them; they cross as JSON
        and are checked against the function's annotations.

        Raises:
            ModelpackError: the typed error that the function raised.
            MissingDependencyError: the module needs a library that is not installed.
            WorkerError: the worker crashed or exceeded a limit.
            failure: the function raised anything else; the message says what.
        """
        import msgspec

        worker = self._workers.get(key)
        if worker is None:
            self._started += 1
            log = self.scratch / f"worker{self._started}.log"
            worker = self._workers[key] = _Worker(log, self.scratch, self._limits)
        job = {"entry": entry, "args": [msgspec.to_builtins(arg) for arg in args]}
        try:
            answer = worker.ask(job)
        except BaseException:
            self._workers.pop(key).kill()
            raise
        printed = worker.log_tail()
        if printed:
            logger.debug("%s printed:\n%s", entry, printed)
        if "error" in answer:
            raise _error_from(answer["error"], failure, printed)
        return msgspec.convert(answer["result"], returns)

    def rename(self, old: str, new: str) -> None:
        """Let the worker of ``old`` serve ``new`` from now on; nothing if there is none."""
        if old in self._workers and new not in self._workers:
            self._workers[new] = self._workers.pop(old)


class _Worker:
    """One child process and the pipes to it."""

    def __init__(self, log: Path, scratch: Path, limits: Limits) -> None:
        import psutil

        self._log = log
        self._limits = limits
        self._memory = limits.memory or int(available_memory() * _DEFAULT_MEMORY_SHARE)
        self._log_start = 0
        temporary = scratch / "tmp"
        temporary.mkdir(exist_ok=True)
        environment = {**os.environ, **_ENVIRONMENT, "TMPDIR": str(temporary)}
        with log.open("wb") as stream:
            self._process = subprocess.Popen(
                # -P: a file called torch.py in the user's directory must not shadow PyTorch.
                [sys.executable, "-P", "-m", "modelpack.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
                env=environment,
                start_new_session=True,  # so that it and its children are ended together
            )
        self._watch = psutil.Process(self._process.pid)
        self._answers: queue.Queue[bytes] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put(b"")

    def ask(self, job: dict[str, Any]) -> dict[str, Any]:
        """Send a job and wait for its answer, within the limits."""
        self._log_start = self._log.stat().st_size
        deadline = time.monotonic() + self._limits.timeout
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(job).encode() + b"\n")
            self._process.stdin.flush()
        while True:
            try:
                line = self._answers.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                self._check_limits(job["entry"], deadline)
                continue
            if not line:
                raise self._crashed(job["entry"])
            answer: dict[str, Any] = json.loads(line)
            return answer

    def _check_limits(self, entry: str, deadline: float) -> None:
        used = self._resident()
        if used > self._memory:
            raise WorkerError(
                f"{step_name(entry)} used {used >> 20} MiB of memory; "
                f"the limit is {self._memory >> 20} MiB",
                hint="raise --memory-limit, or use a machine with more memory",
                log=self.log_tail(),
            )
        if time.monotonic() > deadline:
            raise WorkerError(
                f"{step_name(entry)} was still running after {self._limits.timeout:g} s",
                hint="raise --timeout",
                log=self.log_tail(),
            )

    def _resident(self) -> int:
        import psutil

        total = 0
        with contextlib.suppress(psutil.Error):
            for process in (self._watch, *self._watch.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    total += process.memory_info().rss
        return total

    def _crashed(self, entry: str) -> WorkerError:
        code = self._process.wait()
        how = f"exited with status {code}"
        hint = "the log above shows the last output of the worker"
        if code < 0:
            how = f"was killed by {signal.Signals(-code).name}"
            if -code == signal.SIGKILL:
                hint = "the system may have run out of memory; see --memory-limit"
        return WorkerError(f"{step_name(entry)}: the worker {how}", hint=hint, log=self.log_tail())

    def log_tail(self) -> str:
        """The end of what the worker has printed since the current job began."""
        with self._log.open("rb") as stream:
            stream.seek(self._log_start)
            text = stream.read().decode(errors="replace")
        dump = text.rfind(_STACK_DUMP)
        if dump >= 0:  # the line that crashed comes first in it
            text = text[: dump + _LOG_TAIL // 2]
        return text[-_LOG_TAIL:].strip()

    def kill(self) -> None:
        """End the process and its children at once."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                if stream is not None:
                    stream.close()


# What the functions of adapters do, in the words of a user.
_DEEDS = {
    "scan": "looking for code in the {} model",
    "resolve": "importing the Python reference",
    "describe": "opening the {} model",
    "run": "running the {} model",
    "quantize": "quantizing the {} model",
    "trace": "tracing the {} model",
    "replay": "running the {} model from the middle",
    "cut": "cutting a piece from the {} model",
    "check": "checking the {} model",
}


def step_name(entry: str) -> str:
    """Say what an entry ``module:function`` does: "opening the keras model"."""
    module, _, function = entry.rpartition(":")
    framework = module.rpartition(".")[2].removesuffix("_quantization").removesuffix("_trace")
    if function in _DEEDS:
        return _DEEDS[function].format(framework)
    if function.startswith("to_"):
        return f"converting {framework} to {function.removeprefix('to_')}"
    return entry


def available_memory() -> int:
    """Bytes of memory that can be used now: of the machine, or of the control group if less."""
    import psutil

    available = int(psutil.virtual_memory().available)
    with contextlib.suppress(OSError, ValueError):
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
        available = min(available, max(limit - used, 0))
    return available


def _error_from(answer: dict[str, str], failure: type[ModelpackError], log: str) -> ModelpackError:
    kind = error_types().get(answer["type"])
    if kind is None:  # not one of ours: what the library printed may be all there is to go by
        return failure(answer["message"], hint=answer["hint"], log=log)
    return kind(answer["message"], hint=answer["hint"])


# --- the child -----------------------------------------------------------------------


def _main() -> None:
    # Converters make millions of objects that stay: to look through them for garbage as often as
    # Python does by itself takes a tenth of the time.
    gc.set_threshold(10_000)
    jobs, answers = _private_streams()
    _die_with_parent()
    import faulthandler

    faulthandler.enable()
    for line in jobs:
        job = json.loads(line)
        try:
            answer = {"result": _run(job["entry"], job["args"])}
        except BaseException as error:
            with contextlib.suppress(OSError):  # the log may be on the disk that is full
                traceback.print_exc()
            answer = {"error": _describe_error(job["entry"], error)}
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.flush()


def _private_streams() -> tuple[Iterator[bytes], typing.BinaryIO]:
    """Keep the pipes for ourselves: descriptor 0 becomes empty, 1 becomes the log."""
    jobs = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.dup2(2, 1)
    return jobs, answers


def _die_with_parent() -> None:
    """On Linux, be killed when the parent is, even if it had no time to do it."""
    if sys.platform == "linux":
        import ctypes

        pr_set_pdeathsig = 1  # from <sys/prctl.h>
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def _run(entry: str, args: list[Any]) -> Any:
    import msgspec

    module_name, _, name = entry.partition(":")
    function = getattr(importlib.import_module(module_name), name)
    hints = typing.get_type_hints(function)
    kinds = [kind for parameter, kind in hints.items() if parameter != "return"]
    values = [msgspec.convert(arg, kind) for arg, kind in zip(args, kinds, strict=True)]
    return msgspec.to_builtins(function(*values))


def _describe_error(entry: str, error: BaseException) -> dict[str, str]:
    typed = _typed(entry, error)
    if typed is None:
        first = next((line for line in str(error).splitlines() if line.strip()), "")
        return {
            "type": "",
            "message": f"{step_name(entry)} failed: {type(error).__name__}: {first.strip()}",
            "hint": "",
        }
    return {"type": type(typed).__name__, "message": typed.message, "hint": typed.hint}


def _typed(entry: str, error: BaseException) -> ModelpackError | None:
    if isinstance(error, ModelpackError):
        return error
    if isinstance(error, MemoryError):
        return WorkerError(f"{step_name(entry)} ran out of memory", hint="see --memory-limit")
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return InputError(
            f"no space left for temporary files while {step_name(entry)}", hint="set TMPDIR"
        )
    if isinstance(error, ModuleNotFoundError) and not (error.name or "").startswith("modelpack"):
        from modelpack.dependencies import extra_for

        name = (error.name or "").partition(".")[0]
        return MissingDependencyError(
            f"{entry} needs '{name}', which is not installed", hint=extra_for(entry)
        )
    return None


if __name__ == "__main__":
    _main()
