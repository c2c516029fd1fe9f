"""What did it do, and what did it cost?

`JUDGES` names the judges that need nothing but a pack's rules; a new one is one file and one line.
"""

from collections.abc import Callable

from persona_probe.evaluation.judge import Judge
from persona_probe.evaluation.phrase_judge import PhraseJudge
from persona_probe.personas.judge_rules import JudgeRules

JUDGES: dict[str, Callable[[JudgeRules], Judge]] = {"phrases": PhraseJudge}
