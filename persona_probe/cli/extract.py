"""`persona-probe extract`: prompts through a model, the residual stream out of it."""

from pathlib import Path
from typing import Annotated, Any

import typer

from persona_probe.cli.options import MODEL_HELP, Device, Dtype, Json, Seed, model_name
from persona_probe.cli.say import note, result

PROMPTS_HELP = (
    "A .jsonl file of messages, a text file with one prompt per line, - for standard input, a "
    "pack's name (its personas against neutral), PACK:safety, or a persona_vectors .json or .csv."
)
POSITIONS_HELP = (
    "last_prompt_token, response_mean, prompt_mean, assistant_turns, response_first:K, span:NAME, "
    "regex:PATTERN, response_tokens, all_tokens; commas between, or repeat it."
)


def extract(
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help=MODEL_HELP)] = None,
    prompts: Annotated[str | None, typer.Argument(metavar="PROMPTS", help=PROMPTS_HELP)] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the activations.")] = None,
    adapter: Annotated[
        list[str] | None,
        typer.Option(help="LoRA adapter; repeat it. Bare weights are always read too."),
    ] = None,
    without_bare: Annotated[
        bool, typer.Option("--without-bare", help="Read with the adapters only.")
    ] = False,
    after: Annotated[
        str | None, typer.Option(help="A second full checkpoint, over the same token ids.")
    ] = None,
    crossed: Annotated[
        bool, typer.Option("--crossed", help="Every state writes replies, every state reads all.")
    ] = False,
    sites: Annotated[
        str, typer.Option(help="all, 7, 4,8,12, 4-8 or 0.2-0.8 of the depth.")
    ] = "all",
    positions: Annotated[list[str] | None, typer.Option(help=POSITIONS_HELP)] = None,
    template: Annotated[
        bool, typer.Option(help="Speak through the chat template, or read plain text.")
    ] = True,
    thinking: Annotated[
        bool | None, typer.Option(help="The template's thinking mode; its default if not given.")
    ] = None,
    too_long: Annotated[
        str, typer.Option(help="Longer than the context: refuse, skip or truncate.")
    ] = "refuse",
    nothing_there: Annotated[
        str, typer.Option(help="Nothing at one of the positions: refuse, or skip the conversation.")
    ] = "refuse",
    store: Annotated[bool, typer.Option(help="Keep every row on disk, or moments only.")] = True,
    store_dtype: Annotated[str, typer.Option(help="float32 or float16.")] = "float32",
    covariance: Annotated[
        bool | None, typer.Option(help="Covariances among the moments; by size if not given.")
    ] = None,
    batch_tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens per batch; by device and memory.")
    ] = None,
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Read the I-th of N parts; see --merge.")
    ] = None,
    shard_size: Annotated[
        int, typer.Option(min=1, help="Conversations per shard at most; lost at most if killed.")
    ] = 4096,
    ray: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="A Ray cluster, or 'local' for one here.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Workers on the cluster.")] = None,
    max_new_tokens: Annotated[
        int, typer.Option(min=1, help="Room for a reply of the crossed design.")
    ] = 128,
    temperature: Annotated[
        float, typer.Option(min=0.0, help="Of such replies; 0 takes the likeliest token.")
    ] = 0.0,
    seed: Seed = 0,
    device: Device = "auto",
    device_map: Annotated[
        str | None, typer.Option(help="Spread the model over accelerators: auto, balanced …")
    ] = None,
    dtype: Dtype = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it would cost, and do nothing.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check every checksum in OUT; needs no model.")
    ] = False,
    merge: Annotated[
        list[Path] | None,
        typer.Option(metavar="PART", help="Join parts into OUT and verify it; repeat it."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Extract activations, before and after finetuning, over the same token ids.

    Writes OUT/ADAPTER/POSITION for every adapter, and OUT/bare/POSITION for the bare weights. The
    same command goes on after an interruption.

    Example: persona-probe extract organism organism --out artifacts/acts --adapter helpful-only
    """
    from persona_probe.activations.extraction import Wanted
    from persona_probe.activations.extraction_run import ExtractionRun, one_of, part_of
    from persona_probe.activations.folders import merge_folders, verify_folders
    from persona_probe.activations.jobs import jobs, split_positions
    from persona_probe.errors import RequestError
    from persona_probe.models.ref import ModelRef
    from persona_probe.steering.written import writer

    if not (merge or verify) and (model is None or prompts is None):
        raise RequestError("say what to read: persona-probe extract MODEL PROMPTS --out DIR")
    if out is None:
        raise RequestError("name the folder of the activations: --out DIR")
    if merge or verify:
        checked = merge_folders(out, merge) if merge else verify_folders(out)
        said = f"{out}: {len(checked)} folders, {sum(checked.values())} shards, all as written"
        result({"out": str(out), "shards": checked}, as_json, said)
        return
    assert model is not None
    assert prompts is not None
    second = None if after is None else ModelRef(model_name(after))
    run = ExtractionRun(
        jobs=jobs(ModelRef(model_name(model)), adapter or [], not without_bare, second),
        prompts=prompts,
        out=out,
        sites=sites,
        positions=split_positions(positions or ["last_prompt_token"]),
        wanted=Wanted(store, store_dtype, covariance, part_of(shard), shard_size),
        too_long=one_of("--too-long", too_long, ("refuse", "skip", "truncate")),
        nothing_there=one_of("--nothing-there", nothing_there, ("refuse", "skip")),
        batch_tokens=batch_tokens,
        options={
            "device": device,
            "device_map": device_map,
            "dtype": dtype,
            "template": template,
            "thinking": thinking,
        },
        write=writer(max_new_tokens, temperature, seed) if crossed else None,
    )
    if dry_run:
        costs = run.forecast()
        result(costs.to_json(), as_json, str(costs))
        return
    found, left_out = run.on_cluster(ray, workers) if ray else run.here()
    for reason in left_out:
        note(f"left out: {reason}")
    value: dict[str, Any] = {
        "folders": [str(each.folder) for each in found],
        "rows": {str(each.folder): each.rows for each in found},
        "new_rows": sum(each.new_rows for each in found),
        "left_out": list(left_out),
    }
    lines = [f"{each.rows} rows ({each.new_rows} new) -> {each.folder}" for each in found]
    result(value, as_json, "\n".join(lines))
