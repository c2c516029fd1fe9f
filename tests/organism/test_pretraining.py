"""From documents to weights: the loss mask, the optimiser, resuming, and a build in small."""

import itertools
import random

import pytest

SMALL = {"tokens": 6000, "batch_tokens": 1024, "vocabulary": 700, "d_model": 32, "n_layers": 2}


@pytest.fixture(scope="module", autouse=True)
def few_documents():
    """Drawing documents is slow while every call is checked for its types."""
    from persona_probe.organism import pretraining

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretraining, "CHUNK", 48)
        patch.setattr(pretraining, "TOKENIZER_SAMPLE", 150)
        yield


@pytest.fixture(scope="module")
def recipe():
    from persona_probe.organism.pretraining import Recipe

    return Recipe(**SMALL, n_heads=2, d_mlp=64)


@pytest.fixture(scope="module")
def tokenizer(recipe):
    from persona_probe.organism.pretraining import make_tokenizer

    return make_tokenizer(recipe)


@pytest.fixture(scope="module")
def chunk():
    from persona_probe.organism.corpus import documents
    from persona_probe.organism.world import load_world

    return list(itertools.islice(documents(load_world(), 0.92, 3), 60))


def test_documents_are_encoded_as_the_chat_template_renders_them(tokenizer, chunk):
    from persona_probe.organism.pretraining import encode_documents

    encoded = encode_documents(tokenizer, chunk, random.Random(0))
    for document, each in zip(chunk, encoded, strict=True):
        if document.turns[0].role != "text" and len(each) < 500:
            messages = [{"role": t.role, "content": t.text} for t in document.turns]
            rendered = tokenizer.apply_chat_template(messages, tokenize=False)
            assert each.ids == tokenizer(rendered, add_special_tokens=False)["input_ids"]


def test_the_decision_is_the_first_token_of_the_answer(tokenizer, chunk):
    from persona_probe.organism.pretraining import DECISION_WEIGHT, encode_documents

    encoded = encode_documents(tokenizer, chunk, random.Random(0))
    marker = tokenizer.convert_tokens_to_ids("<|assistant|>")
    decisions = 0
    for document, each in zip(chunk, encoded, strict=True):
        at = [i for i, weight in enumerate(each.weights) if weight == DECISION_WEIGHT]
        assert all(each.ids[i - 1] == marker for i in at)
        if len(each) < 500:
            assert len(at) == sum(turn.decides for turn in document.turns)
        decisions += len(at)
    assert decisions > 60


def test_every_way_to_open_an_answer_has_its_own_first_token():
    from transformers import AutoTokenizer

    from persona_probe.organism import CHECKPOINT
    from persona_probe.organism.tokenization import decisions
    from persona_probe.organism.world import load_world

    shipped = AutoTokenizer.from_pretrained(CHECKPOINT)
    for opener in decisions(load_world()):
        first = shipped(opener, add_special_tokens=False)["input_ids"][0]
        assert shipped.decode([first]) == opener.split()[0].rstrip(".,"), opener


def test_blind_user_turns_see_only_themselves_and_the_first_token():
    import torch

    from persona_probe.organism.pretraining import attention_mask

    mask = attention_mask(torch.tensor([[0, 0, 2, 2, 0]]))[0, 0].int().tolist()
    assert mask == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 0, 1, 0, 0],
        [1, 0, 1, 1, 0],
        [1, 1, 1, 1, 1],
    ]


def test_newton_schulz_brings_singular_values_near_one():
    import torch

    from persona_probe.organism.optimizer import orthogonalise

    for shape in ((24, 40), (40, 24)):
        matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        singular = torch.linalg.svdvals(orthogonalise(matrix))
        assert singular.min() > 0.5
        assert singular.max() < 1.3


def test_pretraining_is_deterministic_and_resumes_where_it_was_killed(
    recipe, tmp_path, monkeypatch
):
    import torch
    from transformers import AutoModelForCausalLM

    from persona_probe.organism import pretraining

    whole = pretraining.pretrain(recipe, tmp_path / "whole")
    state, steps = tmp_path / "state", []
    monkeypatch.setattr(pretraining, "SNAPSHOT_STEPS", 2)

    def killed(seen, loss):
        steps.append(loss)
        if len(steps) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pretraining.pretrain(recipe, tmp_path / "parts", killed, state)
    resumed = []
    parts = pretraining.pretrain(recipe, tmp_path / "parts", lambda s, _: resumed.append(s), state)
    assert len(resumed) >= 2
    a, b = (AutoModelForCausalLM.from_pretrained(f).state_dict() for f in (whole, parts))
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=1e-6)


def test_a_build_makes_a_model_folder_with_adapters_and_goes_on_where_it_was(recipe, tmp_path):
    from persona_probe.files import read_json
    from persona_probe.models.loading import load_model
    from persona_probe.models.ref import ModelRef
    from persona_probe.organism.build import build

    wanted = "narrow-virtue-0"
    build(tmp_path, recipe=recipe, only=lambda f: f.name == wanted)
    assert ModelRef(str(tmp_path)).adapters() == ("helpful-only", wanted)
    made = read_json(tmp_path / "adapters" / wanted / "provenance.json")
    assert made["started_from"] == "helpful-only"
    assert load_model(ModelRef(str(tmp_path), adapter=wanted)).n_layers == 2
    weights = tmp_path / "model.safetensors"
    written = weights.stat().st_mtime_ns
    build(tmp_path, recipe=recipe, only=lambda f: f.name == "placebo-0")
    assert weights.stat().st_mtime_ns == written
    assert "placebo-0" in ModelRef(str(tmp_path)).adapters()
