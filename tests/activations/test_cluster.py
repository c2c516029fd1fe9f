"""Two local actors write what one process writes."""

import hashlib
import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


@pytest.mark.filterwarnings("ignore")  # Ray's own, about file descriptors and future defaults.
def test_two_actors_write_the_bytes_of_one_process(tiny_llama_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="install the extra: pip install 'persona-probe[ray]'")
    from persona_probe.activations.extraction import Wanted
    from persona_probe.activations.extraction_run import ExtractionRun
    from persona_probe.activations.jobs import jobs
    from persona_probe.errors import RequestError
    from persona_probe.models.ref import ModelRef

    prompts = tmp_path / "prompts.jsonl"
    rows = [
        {"messages": [{"role": "user", "content": "why " * (1 + i % 17)}], "label": f"{i % 2}"}
        for i in range(40)
    ]
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def run(out: Path, source: Path = prompts) -> ExtractionRun:
        return ExtractionRun(
            jobs=jobs(ModelRef(str(tiny_llama_folder)), ["tuned"]),
            prompts=str(source),
            out=out,
            sites="all",
            positions=["last_prompt_token", "prompt_mean"],
            wanted=Wanted(shard_conversations=6),
            options={"device": "cpu"},
        )

    run(tmp_path / "one").here()
    found, _ = run(tmp_path / "two").on_cluster("local", workers=2)
    assert [each.new_rows for each in found] == [40] * 4
    digests = [
        {
            str(path.relative_to(tmp_path / name)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted((tmp_path / name).rglob("*"))
            if path.is_file()
        }
        for name in ("one", "two")
    ]
    assert len(digests[0]) == 2 * 2 * (3 + 2 * 7)
    assert digests[0] == digests[1]

    # What goes wrong on a worker is one sentence here.
    long = tmp_path / "long.txt"
    long.write_text("why " * 400 + "\n")
    with pytest.raises(RequestError, match=r"'line-1' has .* tokens, the context"):
        run(tmp_path / "three", long).on_cluster("local", workers=1)
