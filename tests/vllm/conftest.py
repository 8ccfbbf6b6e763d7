"""A tiny model that a real vLLM serves on the CPU. Run by `make test-vllm`, in an environment that has vLLM."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from agent_rl.engine.vllm.requests import LOGPROBS_MODE
from tests.ports import free_port

START_TIMEOUT_S = 240

if importlib.util.find_spec("vllm") is None:
    collect_ignore_glob = ["test_*.py"]  # `make test-vllm` runs them, in CI too
else:
    # What makes vLLM usable on a small machine without a GPU; set before it is imported, and inherited by its
    # processes. Not where it is missing: this file is read there too, and other tests compile.
    os.environ |= {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "OMP_NUM_THREADS": "1",
        "TORCHDYNAMO_DISABLE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
    }


def pytest_report_header() -> str | None:
    return (
        "tests/vllm: left to `make test-vllm`, vLLM is not installed here"
        if "collect_ignore_glob" in globals()
        else None
    )


CORPUS = [
    "Guess my number. It is from 0 to 19. higher lower correct",
    '<tool_call>\n{"name": "add", "arguments": {"amount": 1}}\n</tool_call>',
]


@pytest.fixture
def anyio_backend() -> str:
    """vLLM runs on asyncio only."""
    return "asyncio"


@pytest.fixture(scope="session")
def tokenizer():
    from agent_rl.testing.tiny import make_tokenizer

    return make_tokenizer(CORPUS)


@pytest.fixture(scope="session")
def model(tokenizer):
    """Two layers with logits far from uniform, so that errors show."""
    import torch

    from agent_rl.testing.tiny import make_model

    torch.set_num_threads(1)
    model = make_model(tokenizer, max_context=512)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4.0)
    return model


@pytest.fixture(scope="session")
def model_folder(model, tokenizer, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def server(model_folder, tmp_path_factory) -> Iterator[str]:
    """The URL of a real `vllm serve`."""
    port = free_port()
    log = tmp_path_factory.mktemp("server") / "log.txt"
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model_folder)]
    command += f"--host 127.0.0.1 --port {port} --dtype float32 --enforce-eager --gpu-memory-utilization 0.2".split()
    command += f"--max-num-seqs 32 --max-model-len 400 --logprobs-mode {LOGPROBS_MODE} --enable-scale-out".split()
    command += ["--enable-lora", "--max-lora-rank", "8"]
    environment = os.environ | {"VLLM_SERVER_DEV_MODE": "1", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"}
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
        try:
            url = f"http://127.0.0.1:{port}"
            wait_until_ready(url, process, log)
            yield url
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_until_ready(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            if httpx.get(f"{url}/health", timeout=2).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.5)
    raise RuntimeError(f"vLLM did not start:\n{log.read_text('utf-8', 'replace')[-4000:]}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "vllm" in item.path.parts:  # vLLM leaves its sockets to the garbage collector
            item.add_marker(pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"))
            item.add_marker(pytest.mark.filterwarnings("ignore::ResourceWarning"))
