"""`persona-probe constitution …`: what the constitutions say, and samples written by them."""

from pathlib import Path
from typing import Annotated

import typer

from persona_probe.cli import sample_options as ask
from persona_probe.cli.options import (
    Adapter,
    Device,
    Dtype,
    Json,
    Model,
    PackName,
    Seed,
    model_name,
)
from persona_probe.cli.say import note, result, table


def show(
    constitution: Annotated[
        str | None, typer.Argument(metavar="[CONSTITUTION]", help="All of them if not given.")
    ] = None,
    reading: ask.Reading = None,
    as_json: Json = False,
) -> None:
    """List the shipped constitutions, or print one principle by principle.

    Example: persona-probe constitution show deontology
    """
    from persona_probe.personas.constitution import load_constitution, shipped_constitutions

    if constitution is None:
        every = [load_constitution(name) for name in shipped_constitutions()]
        rows = [
            [c.name, c.title, str(len(c.principles)), ", ".join(c.readings) or "–"] for c in every
        ]
        text = table(["name", "title", "principles", "readings"], rows)
        result({"constitutions": [c.name for c in every]}, as_json, text)
        return
    found = load_constitution(constitution, reading)
    value = {
        "name": found.name,
        "title": found.title,
        "hash": found.hash,
        "system": found.system,
        "readings": dict(found.readings),
        "principles": [dict(vars(p)) for p in found.principles],
    }
    lines = [f"{found.title}: {found.system}", ""]
    lines += [f"{i}. {p.name}: {p.text}" for i, p in enumerate(found.principles, start=1)]
    result(value, as_json, "\n".join(lines))


def samples(
    model: Model,
    constitution: ask.ConstitutionName,
    out: Annotated[Path, typer.Option(help="The .jsonl file of samples.")],
    reading: ask.Reading = None,
    adapter: Adapter = None,
    pack: PackName = "organism",
    prompts: ask.Prompts = None,
    scope: ask.Scope = "narrow",
    category: ask.Category = None,
    n: ask.Number = 240,
    benign_share: ask.BenignShare = 0.4,
    method: ask.MethodOption = None,
    rounds: ask.Rounds = 1,
    shots: ask.Shots = 0,
    temperature: ask.Temperature = 0.7,
    max_new_tokens: ask.MaxNewTokens = None,
    endpoint: ask.EndpointUrl = None,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Dtype = None,
    as_json: Json = False,
) -> None:
    """Draft, criticise by a principle, revise: samples for finetuning, with their lineage.

    What shares words or meaning with held-out prompts and items is dropped and counted. The same
    command goes on after an interruption.

    Example: persona-probe constitution samples organism --adapter helpful-only \
--constitution virtue --out artifacts/virtue.jsonl
    """
    from persona_probe.finetuning.recipe import sample_method_for
    from persona_probe.finetuning.samples import sample, sample_work
    from persona_probe.finetuning.writer import writer_named
    from persona_probe.models.ref import ModelRef
    from persona_probe.personas.constitution import load_constitution
    from persona_probe.personas.pack import load_pack

    asked = load_pack(pack)
    name = model_name(model)
    local = None if endpoint else ModelRef(name).folder
    work = sample_work(
        asked,
        load_constitution(constitution, reading),
        scope,
        category or (),
        prompts,
        n=n,
        benign_share=benign_share,
        method=sample_method_for(local, method),
        rounds=rounds,
        shots=shots,
        seed=seed,
    )
    writer = writer_named(
        name,
        adapter,
        endpoint,
        device,
        dtype,
        max_new_tokens=max_new_tokens or asked.max_new_tokens,
        temperature=temperature,
        seed=seed,
    )
    done = sample(work, writer, out)
    result(done.to_json(), as_json, f"{done.said}\n-> {out}")


def audit(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="A .jsonl file of samples.")],
    pack: PackName = "organism",
    scope: ask.Scope = "narrow",
    category: ask.Category = None,
    words: Annotated[int, typer.Option(min=3, help="Words in a row that count as shared.")] = 8,
    model: Annotated[
        str | None, typer.Option(help="Embed with this model; weighted words without.")
    ] = None,
    device: Device = "auto",
    dtype: Dtype = None,
    as_json: Json = False,
) -> None:
    """Look in training data for held-out categories, prompts and diagnostic items.

    Exit code 1 if anything leaks.

    Example: persona-probe constitution audit artifacts/virtue.jsonl --model organism
    """
    from persona_probe.evaluation.prompt_embedding import prompt_embedding
    from persona_probe.finetuning.leak_audit import audit as look
    from persona_probe.finetuning.leak_audit import held_out_of
    from persona_probe.finetuning.prompts import scope_categories
    from persona_probe.models.conversations import read_conversations
    from persona_probe.models.loading import load_model
    from persona_probe.personas.pack import load_pack
    from persona_probe.personas.tier_audit import TFIDF, tfidf

    asked = load_pack(pack)
    held_out = held_out_of(asked, scope_categories(asked, scope, category or ()))
    samples_read = read_conversations(data)
    by_model = None
    if model is not None:
        loaded = load_model(model_name(model), device=device, dtype=dtype)
        by_model = prompt_embedding(loaded)
    embedder, name = by_model or (tfidf, TFIDF)
    found = look(samples_read, held_out, embedder, name, words)
    if as_json:
        result(found.to_json(), as_json, "")
    for leak in found.leaks[:20]:
        note(f"{leak.sample}: {leak.check}, {leak.held_out}: {leak.evidence}")
    found.check()
    if not as_json:
        result({}, False, found.said)
