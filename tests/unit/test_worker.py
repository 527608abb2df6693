from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from modelpack.errors import (
    ConversionError,
    InputError,
    MissingDependencyError,
    QuantizationError,
    WorkerError,
    error_types,
)
from modelpack.signature import DType, Signature, TensorSpec
from modelpack.worker import Limits, WorkerPool, available_memory

# What the children run. It is imported there by name, so it is written as a module of its own.
STEPS = """
from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from modelpack import errors
from modelpack.signature import Signature
from modelpack.steps import StepOptions, StepResult

calls = 0


def pid() -> int:
    return os.getpid()


def count() -> int:
    global calls
    calls += 1
    return calls


def double(text: str, times: int) -> list[str]:
    return [text] * times


def renamed(signature: Signature, options: StepOptions) -> StepResult:
    first = signature.inputs[0]
    assert type(first.shape) is tuple
    return StepResult({"name": options.name}, {"rank": len(first.shape)}, notes=(str(first),))


def killed() -> None:
    print("before the end", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def aborted() -> None:
    os.write(2, b"assertion failed in C\\n")
    os.abort()


def deep() -> None:
    def deeper_and_deeper_until_the_stack_is_long(further: int) -> None:
        deeper_and_deeper_until_the_stack_is_long(further - 1) if further else os.abort()
    deeper_and_deeper_until_the_stack_is_long(200)


def left() -> None:
    os._exit(7)


def exited() -> None:
    sys.exit(3)


def hungry(megabytes: int) -> int:
    held = bytearray(os.urandom(1 << 20) * megabytes)
    time.sleep(60)
    return len(held)


def hungry_child() -> None:
    code = "import time; held = bytearray(b'x' * (300 << 20)); time.sleep(60)"
    subprocess.run([sys.executable, "-c", code])


def slow() -> None:
    print("still here", flush=True)
    time.sleep(60)


def chatty() -> str:
    os.write(1, b"from C on stdout\\n")
    os.write(2, b"from C on stderr\\n")
    print("from Python on stdout")
    print("from Python on stderr", file=sys.stderr)
    subprocess.run(["echo", "from a child"])
    return "answer"


def chatty_failure() -> None:
    os.write(1, b"the reason is here\\n")
    raise RuntimeError("first line\\nsecond line")


def reads_input() -> str:
    return sys.stdin.read() + os.read(0, 10).decode()


def typed(name: str) -> None:
    raise getattr(errors, name)("what happened", hint="what to do")


def unknown() -> None:
    raise ValueError("\\n\\n  cannot fold axis 3\\nTraceback of a library")


def silent() -> None:
    raise KeyError


def full_disk() -> None:
    raise OSError(28, "No space left on device")


def out_of_memory() -> None:
    raise MemoryError


def needs_more() -> None:
    import not_installed_at_all.part


def half_written() -> str:
    return "\\N{SNOWMAN}\\n\\x00 \\"quoted\\""


def environment(name: str) -> str:
    return os.environ.get(name, "")


def leaves_children(file: str) -> None:
    child = subprocess.Popen(["sleep", "300"])
    Path(file).write_text(str(child.pid))


def temporary() -> str:
    import tempfile

    return tempfile.gettempdir()
"""


@pytest.fixture(autouse=True)
def _steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = tmp_path / "code"
    (code / "toyadapters").mkdir(parents=True)
    (code / "worker_steps.py").write_text(STEPS)
    (code / "toyadapters" / "__init__.py").touch()
    missing = "import not_installed_at_all\n\n\ndef describe() -> None: ...\n"
    for adapter in ("torch", "keras", "sklearn", "tflite", "onnx"):
        (code / "toyadapters" / f"{adapter}.py").write_text(missing)
    ours = str(Path(__file__).resolve().parents[2])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(code), ours]))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    directory = tmp_path / "scratch"
    directory.mkdir()
    return directory


@pytest.fixture
def pool(scratch: Path) -> Iterator[WorkerPool]:
    with WorkerPool(scratch, Limits(timeout=60)) as found:
        yield found


def gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody has waited for yet has ended too."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


# --- jobs -----------------------------------------------------------------------------


def test_arguments_and_results_cross_as_values(pool: WorkerPool) -> None:
    assert pool.call("a", "worker_steps:double", list[str], "é\n", 2) == ["é\n", "é\n"]
    assert pool.call("a", "worker_steps:half_written", str) == '☃\n\x00 "quoted"'


def test_dataclasses_cross_by_annotation(pool: WorkerPool) -> None:
    from modelpack.steps import StepOptions, StepResult

    it = Signature((TensorSpec("x", DType.BFLOAT16, ("n", None, 3)),), ())
    found = pool.call("a", "worker_steps:renamed", StepResult, it, StepOptions(name="iris"))
    assert found == StepResult({"name": "iris"}, {"rank": 3}, notes=("x:bfloat16[n,?,3]",))


def test_jobs_of_one_key_run_in_one_process_and_others_in_another(pool: WorkerPool) -> None:
    first, second, other = (pool.call(key, "worker_steps:pid", int) for key in ("a", "a", "b"))
    assert first == second != other
    assert os.getpid() not in {first, other}
    assert [pool.call("a", "worker_steps:count", int) for _ in range(3)] == [1, 2, 3]


def test_a_renamed_worker_keeps_its_process(pool: WorkerPool) -> None:
    before = pool.call("python", "worker_steps:pid", int)
    pool.rename("python", "torch")
    assert pool.call("torch", "worker_steps:pid", int) == before
    assert pool.call("python", "worker_steps:pid", int) != before
    pool.rename("nothing", "new")


def test_a_rename_never_drops_a_worker_that_is_there(pool: WorkerPool) -> None:
    one, two = (pool.call(key, "worker_steps:pid", int) for key in ("one", "two"))
    pool.rename("one", "two")
    assert pool.call("two", "worker_steps:pid", int) == two
    assert pool.call("one", "worker_steps:pid", int) == one


def test_steps_see_settled_settings(pool: WorkerPool) -> None:
    def setting(name: str) -> str:
        return pool.call("a", "worker_steps:environment", str, name)

    assert setting("PYTHONHASHSEED") == "0"
    assert setting("TF_ENABLE_ONEDNN_OPTS") == "0"
    assert setting("CUDA_VISIBLE_DEVICES") == "-1"


def test_temporary_files_of_steps_are_below_the_scratch_directory(
    pool: WorkerPool, scratch: Path
) -> None:
    assert Path(pool.call("a", "worker_steps:temporary", str)).is_relative_to(scratch)


def test_a_module_in_the_working_directory_shadows_nothing(
    pool: WorkerPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('shadowed')")
    (tmp_path / "worker_steps.py").write_text("def pid() -> int: return -1")
    monkeypatch.chdir(tmp_path)
    assert pool.call("a", "worker_steps:pid", int) > 0


def test_a_step_finds_no_input_on_stdin(pool: WorkerPool) -> None:
    assert pool.call("a", "worker_steps:reads_input", str) == ""
    assert pool.call("a", "worker_steps:pid", int)


# --- output ---------------------------------------------------------------------------


def test_what_a_step_prints_goes_to_the_log_and_never_to_stdout(
    pool: WorkerPool, scratch: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert pool.call("a", "worker_steps:chatty", str) == "answer"
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")
    log = "".join(file.read_text() for file in scratch.glob("*.log"))
    for line in (
        "from C on stdout",
        "from C on stderr",
        "from Python on stdout",
        "from Python on stderr",
        "from a child",
    ):
        assert line in log


def test_what_a_step_printed_is_there_for_debugging(
    pool: WorkerPool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, logger="modelpack.worker"):
        pool.call("a", "worker_steps:chatty", str)
        pool.call("a", "worker_steps:pid", int)
    printed = [record.getMessage() for record in caplog.records]
    assert sum("from C on stdout" in text for text in printed) == 1


def test_an_error_carries_the_log_of_its_own_job_only(pool: WorkerPool) -> None:
    pool.call("a", "worker_steps:chatty", str)
    with pytest.raises(ConversionError) as caught:
        pool.call("a", "worker_steps:chatty_failure", str)
    assert "the reason is here" in caught.value.log
    assert "from C on stdout" not in caught.value.log


# --- errors ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(error_types()))
def test_a_typed_error_crosses_with_its_type_message_and_hint(pool: WorkerPool, name: str) -> None:
    kind = error_types()[name]
    with pytest.raises(kind) as caught:
        pool.call("a", "worker_steps:typed", str, name, failure=QuantizationError)
    assert type(caught.value) is kind
    assert (caught.value.message, caught.value.hint) == ("what happened", "what to do")


@pytest.mark.parametrize("failure", [ConversionError, InputError, QuantizationError])
def test_an_unknown_exception_becomes_the_failure_asked_for(
    pool: WorkerPool, failure: type[ConversionError]
) -> None:
    with pytest.raises(failure) as caught:
        pool.call("a", "worker_steps:unknown", str, failure=failure)
    assert type(caught.value) is failure
    assert caught.value.message == "worker_steps:unknown failed: ValueError: cannot fold axis 3"
    assert "Traceback" in caught.value.log


def test_an_exception_without_a_message_is_still_named(pool: WorkerPool) -> None:
    with pytest.raises(ConversionError, match="silent failed: KeyError"):
        pool.call("a", "worker_steps:silent", str)


def test_a_step_that_calls_exit_fails_and_the_worker_goes_on(pool: WorkerPool) -> None:
    before = pool.call("a", "worker_steps:pid", int)
    with pytest.raises(ConversionError, match="SystemExit"):
        pool.call("a", "worker_steps:exited", str)
    assert pool.call("a", "worker_steps:pid", int) == before


def test_an_error_leaves_the_worker_and_its_state_alone(pool: WorkerPool) -> None:
    before = pool.call("a", "worker_steps:count", int)
    with pytest.raises(ConversionError):
        pool.call("a", "worker_steps:unknown", str)
    assert pool.call("a", "worker_steps:count", int) == before + 1


@pytest.mark.parametrize(
    ("adapter", "extra"),
    [
        ("torch", "modelpack-cli[torch]"),
        ("keras", "modelpack-cli[keras]"),
        ("sklearn", "modelpack-cli[sklearn]"),
        ("tflite", "modelpack-cli[tflite]"),
        ("onnx", "modelpack-cli"),
    ],
)
def test_an_adapter_without_its_library_names_the_extra(
    pool: WorkerPool, adapter: str, extra: str
) -> None:
    with pytest.raises(MissingDependencyError, match="needs 'not_installed_at_all'") as caught:
        pool.call("a", f"toyadapters.{adapter}:describe", str)
    assert caught.value.hint == f"pip install '{extra}'"
    assert caught.value.exit_code == 4


def test_a_library_missed_while_running_is_a_missing_dependency_too(pool: WorkerPool) -> None:
    with pytest.raises(MissingDependencyError, match="'not_installed_at_all'"):
        pool.call("a", "worker_steps:needs_more", str)


def test_a_missing_module_of_ours_is_no_missing_dependency(pool: WorkerPool) -> None:
    with pytest.raises(ConversionError, match=r"modelpack\.adapters\.nothing"):
        pool.call("a", "modelpack.adapters.nothing:describe", str)


def test_a_full_disk_and_exhausted_memory_have_their_own_errors(pool: WorkerPool) -> None:
    with pytest.raises(InputError, match="no space left"):
        pool.call("a", "worker_steps:full_disk", str)
    with pytest.raises(WorkerError, match="ran out of memory"):
        pool.call("a", "worker_steps:out_of_memory", str)


def test_arguments_that_do_not_fit_the_annotations_are_an_error(pool: WorkerPool) -> None:
    with pytest.raises(ConversionError, match="ValidationError"):
        pool.call("a", "worker_steps:double", list[str], 3, "x")


# --- crashes and limits ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "how", "printed"),
    [
        ("killed", "the worker was killed by SIGKILL", "before the end"),
        ("aborted", "the worker was killed by SIGABRT", "assertion failed in C"),
        ("deep", "the worker was killed by SIGABRT", "Fatal Python error: Aborted"),
        ("left", "the worker exited with status 7", ""),
    ],
)
def test_a_crash_is_a_worker_error_with_the_log_and_the_pool_goes_on(
    pool: WorkerPool, step: str, how: str, printed: str
) -> None:
    before = pool.call("a", "worker_steps:pid", int)
    other = pool.call("b", "worker_steps:pid", int)
    with pytest.raises(WorkerError, match=f"worker_steps:{step}: {how}") as caught:
        pool.call("a", f"worker_steps:{step}", str, failure=InputError)
    assert caught.value.exit_code == 10
    assert printed in caught.value.log
    assert pool.call("a", "worker_steps:pid", int) != before
    assert pool.call("b", "worker_steps:pid", int) == other


def test_a_killed_worker_hints_at_memory(pool: WorkerPool) -> None:
    with pytest.raises(WorkerError) as caught:
        pool.call("a", "worker_steps:killed", str)
    assert "--memory-limit" in caught.value.hint


@pytest.mark.parametrize("step", ["hungry", "hungry_child"])
def test_a_step_that_takes_too_much_memory_is_ended(scratch: Path, step: str) -> None:
    arguments = [300] if step == "hungry" else []
    with WorkerPool(scratch, Limits(timeout=50, memory=200 << 20)) as pool:
        before = pool.call("a", "worker_steps:pid", int)
        with pytest.raises(WorkerError, match="the limit is 200 MiB") as caught:
            pool.call("a", f"worker_steps:{step}", int, *arguments)
        assert "--memory-limit" in caught.value.hint
        assert gone(before)


def test_a_step_that_takes_too_long_is_ended(scratch: Path) -> None:
    with WorkerPool(scratch, Limits(timeout=5)) as pool:
        before = pool.call("a", "worker_steps:pid", int)
        with pytest.raises(WorkerError, match="still running after 5 s") as caught:
            pool.call("a", "worker_steps:slow", str)
        assert caught.value.log == "still here"
        assert caught.value.hint == "raise --timeout"
        assert gone(before)


def test_no_process_is_left_when_the_pool_is_left(scratch: Path, tmp_path: Path) -> None:
    with WorkerPool(scratch, Limits(timeout=60)) as pool:
        pids = [pool.call(key, "worker_steps:pid", int) for key in ("a", "b")]
        pool.call("a", "worker_steps:leaves_children", str | None, str(tmp_path / "pid"))  # type: ignore[arg-type]
        pids.append(int((tmp_path / "pid").read_text()))
        assert not any(map(gone, pids))
    assert all(map(gone, pids))


def test_no_process_is_left_after_an_interrupt(
    scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with WorkerPool(scratch, Limits(timeout=60)) as pool:
        pid = pool.call("a", "worker_steps:pid", int)
        monkeypatch.setattr(
            "modelpack.worker._Worker._check_limits",
            lambda *_: os.kill(os.getpid(), signal.SIGINT),
        )
        with pytest.raises(KeyboardInterrupt):
            pool.call("a", "worker_steps:slow", str)
        assert gone(pid)


def test_the_memory_that_is_left_is_known() -> None:
    assert 0 < available_memory() <= psutil.virtual_memory().total
