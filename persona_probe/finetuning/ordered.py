"""A whole finetune in one order: samples of a constitution, a control if wanted, training.

What the command line's `finetune constitution` does: the same two steps as its `constitution
samples` and `finetune sft`, with the samples kept beside the finetune.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from persona_probe.errors import RequestError
from persona_probe.finetuning.controls import ControlName, placebo, refusal_only, shuffled
from persona_probe.finetuning.launch import processes
from persona_probe.finetuning.plan import Finetune
from persona_probe.finetuning.recipe import Run
from persona_probe.finetuning.run import Finetuned, require_place, run_finetune
from persona_probe.finetuning.samples import Samples, SampleWork, sample
from persona_probe.finetuning.writer import Writer
from persona_probe.models.chat import Conversation
from persona_probe.models.conversations import read_conversations


def controlled(
    conversations: Sequence[Conversation],
    control: str | None,
    others: Sequence[Sequence[Conversation]] = (),
    refusals: Sequence[str] = (),
    seed: int = 0,
) -> list[Conversation]:
    """The data of a control, by its name; the data as they are for `None`.

    Raises:
        RequestError: there is no such control, or the data does not allow it.
    """
    _require_control(control, len(others) + 1, refusals)
    if control is None:
        return list(conversations)
    if control == "placebo":
        return placebo(conversations, seed)
    if control == "refusal-only":
        return (
            refusal_only(conversations, refusals, seed)
            if refusals
            else (refusal_only(conversations, seed=seed))
        )
    return shuffled(conversations, others, seed)


def finetune_constitution(
    works: Sequence[SampleWork],
    write: Callable[[], Writer],
    plan: Finetune,
    out: Path,
    run: Run,
    control: str | None = None,
    refusals: Sequence[str] = (),
    seed: int = 0,
) -> tuple[list[Samples], Finetuned]:
    """Write samples of one constitution, or of several for the control "shuffled", and train.

    A placebo asks for benign samples only. The samples lie beside `out`.

    Args:
        works: one per constitution.
        write: makes the writer, which is let go before training begins.
        plan: what is trained; its conversations are put in here.
        out: folder of the finetune.
        run: how training proceeds.
        control: a control's name.
        refusals: the flat refusals of "refusal-only".
        seed: of the control's draws.

    Returns:
        The samples, and the finetune.
    """
    _require_control(control, len(works), refusals)
    if processes() > 1:
        raise RequestError(
            "several processes would each write the samples; write them by `constitution samples`, "
            "then launch `finetune sft` on them"
        )
    require_place(out)
    if control == "placebo":
        works = [replace(work, benign_share=1.0) for work in works]
    made = _samples(works, write, out)
    read = [read_conversations(each.path) for each in made]
    data = (
        read[0] if control == "placebo" else controlled(read[0], control, read[1:], refusals, seed)
    )
    about: dict[str, Any] = {
        "constitution": None if control == "placebo" else [w.constitution.name for w in works],
        "constitution_hash": [work.constitution.hash for work in works],
        "control": control,
        "categories": [] if control == "placebo" else list(works[0].categories),
        "method": works[0].method,
    }
    whole = replace(plan, conversations=tuple(data), about={**plan.about, **about})
    return made, run_finetune(whole, out, run)


def _require_control(control: str | None, constitutions: int, refusals: Sequence[str]) -> None:
    if control is not None and control not in get_args(ControlName):
        raise RequestError(
            f"no control {control!r}; choose one of {', '.join(get_args(ControlName))}"
        )
    if control == "shuffled" and constitutions < 2:
        raise RequestError(
            "the control 'shuffled' mixes the replies of several constitutions; name the others"
        )
    if constitutions > 1 and control != "shuffled":
        raise RequestError(
            "several constitutions are for the control 'shuffled'; choose it, or leave the others "
            "out"
        )
    if refusals and control != "refusal-only":
        raise RequestError("flat refusals belong to the control 'refusal-only'; choose it")


def _samples(works: Sequence[SampleWork], write: Callable[[], Writer], out: Path) -> list[Samples]:
    writer = write()
    paths = [out.with_name(f"{out.name}.{work.constitution.name}.samples.jsonl") for work in works]
    return [sample(work, writer, path) for work, path in zip(works, paths, strict=True)]
