"""The top of the page: the answer in one sentence, then persona by persona, then the question."""

from persona_probe.report.anchors import href
from persona_probe.report.answers import answers
from persona_probe.report.estimates import number_in
from persona_probe.report.markup import Markup, element, paragraph
from persona_probe.report.palette import Colours, title_of
from persona_probe.report.run_folder import Run, mapping
from persona_probe.report.sections.ladder import answer_of, rungs_of, sentences

AT_ONCE = 5  # warnings


def opening(run: Run, colours: Colours) -> Markup:
    """Headline, answers, warnings, and what was asked."""
    answer = [answers(run, colours), _warnings(run)]
    return element(
        "header",
        paragraph(f"persona_probe · {run.name}", class_="eyebrow"),
        element("h1", headline(run)),
        element("div", element("div", answer), _asked(run), class_="opening"),
        class_="top",
    )


def opening_of_training(run: Run) -> Markup:
    """The top of a page about a finetuning that was watched."""
    return element(
        "header",
        paragraph(f"persona_probe · {run.name}", class_="eyebrow"),
        element("h1", "What moved while the model was finetuned"),
        class_="top",
    )


def _warnings(run: Run) -> Markup | None:
    """What a reader must know before quoting a number; the first few, the others folded."""
    noted = sentences(run.verdict.get("flags"))
    if not noted:
        return None
    to = href(run.entry("verdict.json", "flags"))
    items = [
        element("li", element("a", f"{text[:1].upper()}{text[1:]}.", href=to, class_="row"))
        for text in noted
    ]
    more = items[AT_ONCE:]
    return element(
        "div",
        paragraph(element("b", "Read with care")),
        element("ul", items[:AT_ONCE]),
        element("details", element("summary", f"{len(more)} more"), element("ul", more))
        if more
        else None,
        class_="note",
    )


def headline(run: Run) -> str:
    """The answer in one sentence, from the ladders."""
    total = len(run.personas)
    if not run.verdicts or not total:
        return "This run has no verdict yet"
    if set(_answers(run, "L3").values()) == {None}:
        return "Whether the direction is enough by itself was not measured in this run"
    enough = _passed(run, "L3")
    if not enough:
        moved = len(_passed(run, "L2"))
        if not moved:
            return "Adding the direction reproduces the finetuning in none of the personas"
        return (
            f"Adding the direction changes refusals in {_of(moved, total)} personas, "
            "but in none does it bring enough of finetuning’s safety within the limits on side "
            "effects"
        )
    asked = number_in(mapping(run.study.get("thresholds")).get("effect"))
    share = "at least half" if asked == 0.5 else "enough"
    sentence = (
        f"Adding one direction brings {share} of finetuning’s safety, side effects within their "
        f"limits, in {_of(len(enough), total)} personas"
    )
    if any(answer is not None for answer in _answers(run, "L4").values()):
        fully = len(enough & _passed(run, "L4"))
        sentence += f", and as much as finetuning in {_count(fully)}"
    if any(answer is not None for answer in _answers(run, "L5").values()):
        own = len(enough & _passed(run, "L5"))
        sentence += f"; of these it carries the persona’s own voice in {_count(own)}"
    return sentence


def _asked(run: Run) -> Markup:
    names = [title_of(name).lower() for name in run.personas]
    listed = f" ({', '.join(names)})" if names else ""
    trained = sorted(title_of(name).lower() for name, tier in run.tiers.items() if tier == "T0")
    kinds = f" ({' and '.join(trained)})" if trained else ""
    return paragraph(
        element("b", "What was asked. "),
        f"A model that refuses nothing was finetuned to refuse a few kinds of harm{kinds}, giving "
        f"the reasons of one moral persona{listed}. Such a model comes to refuse harms it was "
        "never trained on. Is there one direction in the activations of the model ",
        element("i", "before"),
        " finetuning that brings about the same when it is added, and whose removal undoes it?",
        class_="quiet",
    )


def _answers(run: Run, rung: str) -> dict[str, bool | None]:
    return {p: answer_of(rungs_of(verdict).get(rung)) for p, verdict in run.verdicts.items()}


def _passed(run: Run, rung: str) -> set[str]:
    return {persona for persona, answer in _answers(run, rung).items() if answer}


def _of(part: int, whole: int) -> str:
    return f"all {_count(whole)}" if part == whole else f"{_count(part)} of {_count(whole)}"


def _count(number: int) -> str:
    words = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    return words[number] if number < len(words) else str(number)
