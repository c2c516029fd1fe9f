"""A study file: short, forgiving in what it leaves out, and precise in what it refuses."""

from pathlib import Path

import pytest

from persona_probe.errors import RequestError
from persona_probe.study.budget import THOROUGH, Budget
from persona_probe.study.plan import CHECKPOINT, Study
from persona_probe.study.plan_file import read_study
from persona_probe.study.request import keep_plan, planned_in, requested


def model_folder(folder: Path, *adapters: str) -> Path:
    for name in adapters:
        (folder / "adapters" / name).mkdir(parents=True)
        (folder / "adapters" / name / "adapter_config.json").write_text("{}")
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    names = ("helpful-only", "narrow-virtue-0", "narrow-virtue-1", "broad-virtue-0", "placebo-0")
    return model_folder(tmp_path / "weights", *names)


def written(folder: Path, text: str) -> Path:
    path = folder / "study.toml"
    path.write_text(text)
    return path


def test_one_line_is_a_study_of_the_adapters_by_name(model: Path, tmp_path: Path) -> None:
    study = read_study(written(tmp_path, 'model = "weights"\n'))
    assert study.helpful_only == "helpful-only"
    assert study.seeds("virtue", "narrow") == ("narrow-virtue-0", "narrow-virtue-1")
    assert study.scopes("virtue") == ("narrow", "broad")
    assert study.controls == {"placebo": ("placebo-0",)}
    assert study.budget == Budget()


def test_a_short_name_in_one_line_stands_for_its_folder(model: Path, tmp_path: Path) -> None:
    path = written(tmp_path, 'model = "short"\n')
    names = {"short": str(model)}
    study = requested(str(path), lambda name: names[name], None, (None, (), ()), (), {})
    assert study.model == str(model)
    assert study.seeds("virtue", "narrow") == ("narrow-virtue-0", "narrow-virtue-1")


def test_everything_can_be_said(model: Path, tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "whole" / "config.json").write_text("{}")
    study = read_study(
        written(
            tmp_path,
            """
name = "mine"
model = "weights"
seed = 3
judge = "phrases"
sites = "1,2"
strengths = [1, 0.5]
without = ["mediation", "rank_curve"]
[models]
helpful_only = "helpful-only"
placebo = "placebo-0"
[models.virtue]
narrow = ["narrow-virtue-0"]
broad = ["whole"]
[budget]
like = "thorough"
harmful = 10
[thresholds]
effect = 0.6
[guards]
length_ratio = [0.4, 3]
""",
        )
    )
    assert (study.name, study.seed, study.sites, study.strengths) == ("mine", 3, "1,2", (0.5, 1.0))
    assert "mediation" not in study.arms
    assert "random" in study.arms
    assert study.seeds("virtue", "broad") == (CHECKPOINT + str(tmp_path / "whole"),)
    assert (study.budget.harmful, study.budget.items) == (10, THOROUGH.items)
    assert (study.thresholds.effect, study.guards.length_ratio) == (0.6, (0.4, 3.0))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('modell = "x"', r"study.toml, line 1: modell: no such key; did you mean 'model'"),
        (
            'model = "weights"\nseed = "one"',
            r"line 2: seed: a whole number of at least 0, not 'one'",
        ),
        ('model = "weights"\nstrengths = [0]', r"line 2: strengths: a list of positive numbers"),
        ('model = "weights"\narms = ["lucky"]', r"line 2: arms: no group of arms 'lucky'; known"),
        ('model = "weights"\nbudget = "huge"', r"line 2: budget: 'huge' is none of fast, thorough"),
        ('model = "weights"\n[budget]\nharmfull = 3', r"line 3: budget.harmfull: .*mean 'harmful'"),
        ('model = "weights"\n[budget]\nharmful = -3', r"line 3: budget.harmful: a whole number"),
        ('model = "weights"\n[guards]\ndistinct_2 = "a"', r"line 3: guards.distinct_2: a number"),
        ('model = "weights"\n[guards]\nlength_ratio = 2', r"line 3: guards.length_ratio: two num"),
        ('model = "weights"\n[models.stoicism]', r"line 2: models.stoicism: no such key"),
        ('model = "weights"\n[models]\nplacebo = [1]', r"line 3: models.placebo: a list of adapt"),
        (
            'model = "weights"\n[models.virtue]\nnarrow = ["a", "a"]',
            r"line 3: models.virtue.narrow: a finetune is named twice",
        ),
        ('model = "weights"\n[models]\nplacebo = "a"', r"line 2: models: no finetune of any pers"),
        ('pack = "organism"', r"study.toml: model: missing; name a folder"),
        ('model = "weights', r"study.toml: not TOML: Unterminated string"),
    ],
)
def test_a_mistake_is_named_by_file_line_key_and_cure(
    model: Path, tmp_path: Path, text: str, complaint: str
) -> None:
    with pytest.raises(RequestError, match=complaint):
        read_study(written(tmp_path, text))


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"no such file: .*nowhere\.toml"):
        read_study(tmp_path / "nowhere.toml")


def test_a_run_folder_gives_its_plan_back(model: Path, tmp_path: Path) -> None:
    study = read_study(written(tmp_path, 'model = "weights"\n[guards]\ndegenerate = 0.1\n'))
    keep_plan(study, tmp_path / "run")
    again = planned_in(tmp_path / "run")
    assert again == study
    assert again.hash == study.hash
    with pytest.raises(RequestError, match="holds no study to go on with"):
        planned_in(tmp_path)


def test_a_file_and_options_that_name_models_contradict_each_other(
    model: Path, tmp_path: Path
) -> None:
    path = str(written(tmp_path, 'model = "weights"\n'))

    def ask(plan: str, pack: str | None = None, without: tuple[str, ...] = ()) -> Study:
        return requested(plan, str, pack, (None, (), ()), without, {"seed": 5})

    assert ask(path).seed == 5
    assert "wrong" not in ask(path, without=("wrong",)).arms
    with pytest.raises(RequestError, match="leave out --pack"):
        ask(path, pack="organism")
    with pytest.raises(RequestError, match="--without lucky: no such arms"):
        ask(path, without=("lucky",))


def test_thresholds_have_a_hash_of_their_own(model: Path, tmp_path: Path) -> None:
    def frozen(text: str) -> str:
        return read_study(written(tmp_path, f'model = "weights"\n{text}')).frozen_hash

    plain = frozen("")
    assert plain == frozen("seed = 4")
    assert plain != frozen("[thresholds]\neffect = 0.4")
    assert plain != frozen("[guards]\ndegenerate = 0.4")
