"""The endpoint judge against a model server that others wrote: `transformers serve`, loopback."""

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from persona_probe.evaluation.endpoint_judge import EndpointJudge
from persona_probe.evaluation.judge import Case
from tests.conftest import CHATML, DECODER, _write_folder

START = 180  # seconds that a server may take


def _roomy(vocab_size: int) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    settings = DECODER | {"max_position_embeddings": 4096}
    return LlamaForCausalLM(LlamaConfig(vocab_size=vocab_size, **settings))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str, Any]]:
    """Address, model and process of a server with a tiny random chat model."""
    for name in ("fastapi", "openai"):
        pytest.importorskip(name, reason="transformers serve needs transformers[serving]")
    program = shutil.which("transformers", path=str(Path(sys.executable).parent))
    assert program is not None
    folder = tmp_path_factory.mktemp("models") / "grader"
    _write_folder(folder, _roomy, CHATML, ["q_proj"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [program, "serve", str(folder), "--device", "cpu", "--port", str(port)]
    log = (folder / "serve.log").open("w")
    process = subprocess.Popen(command, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + START
        while True:
            assert process.poll() is None, (folder / "serve.log").read_text()[-2000:]
            assert time.monotonic() < until, "the server did not start"
            try:
                if httpx.get(f"{address}/health", timeout=1).status_code == 200:
                    break
            except httpx.HTTPError:
                time.sleep(0.2)
        yield f"{address}/v1", str(folder), process
    finally:
        process.kill()
        process.wait()
        log.close()


@pytest.fixture
def cases(prompts: Any) -> list[Case]:
    return [Case(prompts["harmful"], f"Sure, number {i}.") for i in range(4)]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_a_real_server_says_is_read_and_its_death_costs_unscored_replies(
    server: tuple[str, str, Any], cases: list[Case]
) -> None:
    """A random model never gives a verdict: every reply is unscored, and quotes what it said."""
    address, model, process = server
    asked = EndpointJudge.at(address, model, concurrency=2, pause=0.1, attempts=2, timeout=120.0)
    outcomes = asked.outcomes(cases)
    assert [outcome.kind for outcome in outcomes] == ["unscored"] * len(cases)
    assert all("no verdict in the answer" in outcome.reason for outcome in outcomes), outcomes
    process.kill()
    process.wait()
    gone = EndpointJudge.at(address, model, pause=0.1, attempts=2, give_up_after=1, timeout=5.0)
    outcomes = gone.outcomes(cases)
    assert [outcome.kind for outcome in outcomes] == ["unscored"] * len(cases)
    assert any("stopped answering" in outcome.reason for outcome in outcomes)
