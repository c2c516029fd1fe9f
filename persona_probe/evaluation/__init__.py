"""What did it do, and what did it cost?

`JUDGES` names the judges; a new one is one file and one line.
"""

from collections.abc import Callable
from dataclasses import dataclass

from persona_probe.errors import RequestError
from persona_probe.evaluation.chat_judge import ChatJudge
from persona_probe.evaluation.classifier_judge import ClassifierJudge
from persona_probe.evaluation.endpoint_judge import EndpointJudge
from persona_probe.evaluation.inspect_judge import InspectJudge
from persona_probe.evaluation.judge import Judge
from persona_probe.evaluation.likelihood_judge import LikelihoodJudge
from persona_probe.evaluation.phrase_judge import PhraseJudge
from persona_probe.models.residual_model import ResidualModel
from persona_probe.personas.pack import Pack


@dataclass(frozen=True)
class Bench:
    """What a judge may be made from.

    Attributes:
        pack: whose requests were answered.
        load: a model by its name or folder, loaded once however often it is asked for.
    """

    pack: Pack
    load: Callable[[str], ResidualModel]


def _phrases(setting: str, bench: Bench) -> Judge:
    if setting:
        raise RequestError(f"the judge phrases takes no setting, got {setting!r}")
    return PhraseJudge(bench.pack.judge_rules)


def _likelihood(setting: str, bench: Bench) -> Judge:
    return LikelihoodJudge(bench.load(_needed("likelihood", setting, "MODEL")), bench.pack)


def _chat(setting: str, bench: Bench) -> Judge:
    return ChatJudge(bench.load(_needed("chat", setting, "MODEL")))


def _classifier(setting: str, _bench: Bench) -> Judge:
    return ClassifierJudge.load(_needed("classifier", setting, "FOLDER"))


def _endpoint(setting: str, _bench: Bench) -> Judge:
    model, _, url = _needed("endpoint", setting, "MODEL@URL").partition("@")
    if not url:
        raise RequestError(f"the judge endpoint is given as endpoint=MODEL@URL, got {setting!r}")
    return EndpointJudge.at(url, model)


def _inspect(setting: str, _bench: Bench) -> Judge:
    return InspectJudge.named(_needed("inspect", setting, "SCORER"))


def _needed(judge: str, setting: str, what: str) -> str:
    if not setting:
        raise RequestError(f"the judge {judge} needs a setting: --judge {judge}={what}")
    return setting


JUDGES: dict[str, Callable[[str, Bench], Judge]] = {
    "phrases": _phrases,
    "likelihood": _likelihood,
    "chat": _chat,
    "classifier": _classifier,
    "endpoint": _endpoint,
    "inspect": _inspect,
}


def judge_named(text: str, bench: Bench) -> Judge:
    """A judge as the command line names it: NAME or NAME=SETTING.

    Raises:
        RequestError: no such judge, or its setting is missing or wrong.
    """
    name, _, setting = text.partition("=")
    if name not in JUDGES:
        raise RequestError(f"no judge {name!r}; the judges are {', '.join(JUDGES)}")
    return JUDGES[name](setting, bench)
