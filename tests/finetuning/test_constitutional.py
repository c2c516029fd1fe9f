"""Samples: draft, critique, revision, with their lineage, by local models and over HTTP."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


@pytest.fixture(scope="module")
def pack(small_pack):
    from persona_probe.personas.pack import load_pack

    return load_pack(small_pack)


@pytest.fixture(scope="module")
def qwen(tiny_qwen_folder):
    from persona_probe.models.loading import load_model

    return load_model(str(tiny_qwen_folder), device="cpu")


@pytest.fixture(scope="module")
def own_prompts(tmp_path_factory):
    """A user's own prompts, in words that the pack does not hold out."""
    from persona_probe.files import write_jsonl

    asked = "Today I want to {} some {} of harassment, how?"
    rows = [
        {
            "id": f"{kind}-{verb}-{noun}",
            "messages": [{"role": "user", "content": asked.format(verb, noun)}],
            "kind": kind,
            "category": "harassment",
        }
        for kind, verbs in (("harmful", ("mock", "shame")), ("benign", ("greet", "thank")))
        for verb in verbs
        for noun in ("baker", "nurse", "cousin", "teacher")
    ]
    return write_jsonl(tmp_path_factory.mktemp("prompts") / "own.jsonl", rows)


@pytest.fixture
def work(pack, own_prompts):
    from persona_probe.finetuning.samples import sample_work
    from persona_probe.personas.constitution import load_constitution

    def make(constitution="virtue", **settings):
        options = {"n": 8, "prompts_file": own_prompts, "benign_share": 0.5, **settings}
        return sample_work(pack, load_constitution(constitution), **options)

    return make


class Scripted:
    """A writer that says what it was asked, so that the test sees every conversation."""

    def __init__(self, empty_at=None):
        self.asked, self.empty_at = [], empty_at

    @property
    def identity(self):
        return {"model": "scripted"}

    def write(self, conversations, what):
        self.asked.append((what, list(conversations)))
        return [
            "" if c.id and self.empty_at and self.empty_at in c.id else f"{what} {c.id}"
            for c in conversations
        ]


def rows_of(path):
    from persona_probe.files import read_jsonl

    return read_jsonl(path)


def test_every_round_criticises_the_last_reply_by_a_principle_and_rewrites_it(work):
    from persona_probe.finetuning.constitutional import write_samples
    from persona_probe.finetuning.prompts import draw_prompts

    asked = work(rounds=2)
    prompts = draw_prompts(asked.prompts, asked.categories, 8, 0.25)
    writer = Scripted()
    rows = write_samples(prompts, asked.recipe, writer)
    kinds = [what for what, _ in writer.asked]
    assert kinds == ["Drafting", "Criticising", "Revising", "Criticising", "Revising"]
    harmful = [r for r in rows if r["kind"] == "harmful"]
    assert len(harmful) == 6
    by_name = {p.name: p for p in asked.constitution.principles}
    for row in harmful:
        first, second = row["lineage"]["rounds"]
        assert row["messages"][-1]["content"] == second["revision"]
        last = next(c for c in writer.asked[3][1] if c.id == f"{row['id']}/1/critique")
        assert last.messages[-2].content == first["revision"]
        assert last.messages[-1].content == by_name[second["principle"]].critique
        rewriting = next(c for c in writer.asked[4][1] if c.id == f"{row['id']}/1/revision")
        assert rewriting.messages[-2].content == second["critique"]
        assert rewriting.messages[-1].content == by_name[second["principle"]].revision
        assert row["messages"][0] == {"role": "system", "content": "You are an advisor."}
    for row in (r for r in rows if r["kind"] == "benign"):
        assert row["lineage"] == {
            "method": "as drafted",
            "draft": row["messages"][-1]["content"],
            "rounds": [],
        }


def test_principles_are_drawn_from_all_of_them_and_again_alike(work):
    from persona_probe.finetuning.constitutional import _principle

    asked = work("service")
    prompts = [p for p in asked.prompts if p.kind == "harmful"] * 1
    drawn = [_principle(asked.recipe, p, n).name for p in prompts for n in range(30)]
    assert set(drawn) == {p.name for p in asked.constitution.principles}
    assert drawn == [_principle(asked.recipe, p, n).name for p in prompts for n in range(30)]


def test_worked_examples_come_before_the_request(work):
    from persona_probe.finetuning.constitutional import write_samples

    asked = work(shots=2)
    writer = Scripted()
    harmful = [p for p in asked.prompts if p.kind == "harmful"][:3]
    write_samples(harmful, asked.recipe, writer)
    criticised = writer.asked[1][1][0]
    assert len(criticised.messages) == 1 + 2 * 6 + 3
    shown = {m.content for m in criticised.messages[1:-3]}
    assert {d.draft for d in asked.constitution.demonstrations} <= shown


def test_a_model_without_critique_answers_under_the_constitution_and_the_sample_hides_it(work):
    from persona_probe.finetuning.constitutional import write_samples

    asked = work("deontology", method="system")
    writer = Scripted()
    harmful = [p for p in asked.prompts if p.kind == "harmful"][:3]
    rows = write_samples(harmful, asked.recipe, writer)
    # The pack knows a persona of this name, and its models know that persona's words.
    said = writer.asked[1][1][0].messages[0].content
    assert said == "You are a careful advisor who keeps every promise."
    assert rows[0]["messages"][0]["content"] == "You are an advisor."
    assert rows[0]["lineage"]["method"] == "system"
    assert rows[0]["lineage"]["rounds"][0]["system"] == said
    assert rows[0]["lineage"]["draft"] != rows[0]["messages"][-1]["content"]


SHORT = """
name = "short"
title = "Short"
system = "Be kind."
[[principle]]
name = "kind"
text = "Be kind."
critique = "What is unkind?"
revision = "Make it kind."
"""


@pytest.mark.parametrize("name", ["tiny_model", "qwen"])
def test_local_models_write_samples_end_to_end(name, request, work, tmp_path):
    from persona_probe.finetuning.samples import sample
    from persona_probe.finetuning.writer import LocalWriter
    from persona_probe.models.conversations import read_conversations

    model = request.getfixturevalue(name)
    writer = LocalWriter(model, "tuned", max_new_tokens=6, temperature=1.0)
    own = tmp_path / "short.toml"
    own.write_text(SHORT)
    done = sample(work(str(own)), writer, tmp_path / "s.jsonl")
    rows = rows_of(tmp_path / "s.jsonl")
    told = done.provenance
    assert len(rows) == told["samples"] == 8 - told["empty"] - told["dropped_for_leaks"]
    assert len(rows) >= 4
    assert told["writer"]["adapter"] == "tuned"
    assert told["audit"]["samples"] == 8 - told["empty"]
    assert model.active_adapter is None
    read = read_conversations(tmp_path / "s.jsonl")
    assert all(c.reply for c in read)
    assert sample(work(str(own)), writer, tmp_path / "s.jsonl").already
    assert not done.already


def test_a_killed_call_keeps_its_finished_pieces(work, tmp_path, monkeypatch):
    from persona_probe.errors import RequestError
    from persona_probe.finetuning import samples

    monkeypatch.setattr(samples, "PIECE", 3)
    whole = Scripted()
    samples.sample(work(), whole, tmp_path / "whole.jsonl", embedding="lexical")

    class Dies(Scripted):
        def write(self, conversations, what):
            if len(self.asked) == 4:  # in the second piece
                raise KeyboardInterrupt
            return super().write(conversations, what)

    with pytest.raises(KeyboardInterrupt):
        samples.sample(work(), Dies(), tmp_path / "s.jsonl", embedding="lexical")
    assert not (tmp_path / "s.jsonl").exists()
    with pytest.raises(RequestError, match="unfinished samples of other settings"):
        samples.sample(work(rounds=2), Scripted(), tmp_path / "s.jsonl", embedding="lexical")
    resumed = Scripted()
    samples.sample(work(), resumed, tmp_path / "s.jsonl", embedding="lexical")
    assert len(resumed.asked) == len(whole.asked) - 3
    assert (tmp_path / "s.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert not list(tmp_path.glob(".*"))
    with pytest.raises(RequestError, match="made otherwise"):
        samples.sample(work(rounds=2), Scripted(), tmp_path / "s.jsonl", embedding="lexical")


def test_empty_replies_are_dropped_and_counted(work, tmp_path):
    from persona_probe.errors import PersonaProbeError
    from persona_probe.finetuning.samples import sample

    done = sample(work(), Scripted("baker/0/critique"), tmp_path / "s.jsonl", embedding="lexical")
    assert done.provenance["empty"] > 0
    assert done.provenance["samples"] == 8 - done.provenance["empty"]
    with pytest.raises(PersonaProbeError, match="none of 8 samples is left: 8 came out empty"):
        sample(work(), Scripted("/"), tmp_path / "t.jsonl", embedding="lexical")


@pytest.fixture
def endpoint():
    """A real chat-completions server on loopback; it fails once before it answers."""
    requests, failures = [], [503]

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if failures:
                self.send_response(failures.pop())
                self.end_headers()
                return
            requests.append(body)
            said = f"reply to {body['messages'][-1]['content'][:30]}"
            answer = json.dumps({"choices": [{"message": {"content": said}}]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1", requests, failures
    server.shutdown()
    server.server_close()
    thread.join()


def test_an_endpoint_writes_samples_and_is_asked_again_when_it_fails(endpoint, work, tmp_path):
    from persona_probe.evaluation.endpoint import Endpoint
    from persona_probe.finetuning.samples import sample
    from persona_probe.finetuning.writer import EndpointWriter

    url, requests, _ = endpoint
    waits = []
    writer = EndpointWriter(Endpoint(url, "big", sleep=waits.append), max_new_tokens=9, seed=4)
    done = sample(work(), writer, tmp_path / "s.jsonl")
    assert len(waits) == 1
    assert done.provenance["samples"] == 8
    assert {(r["model"], r["max_tokens"], r["seed"]) for r in requests} == {("big", 9, 4)}
    longest = max(requests, key=lambda r: len(r["messages"]))
    roles = [m["role"] for m in longest["messages"]]
    assert roles == ["system", "user", "assistant", "user", "assistant", "user"]


def test_an_endpoint_that_keeps_failing_says_so(endpoint):
    from persona_probe.errors import PersonaProbeError, RequestError
    from persona_probe.evaluation.endpoint import Endpoint

    url, _, failures = endpoint
    failures[:] = [500] * 9
    asked = [[{"role": "user", "content": "Hello"}]]
    with pytest.raises(PersonaProbeError, match=r"failed: status 500.*run the same command again"):
        Endpoint(url, "big", attempts=3, sleep=lambda _: None).complete(asked)
    assert len(failures) == 6
    failures[:] = [401] * 9
    with pytest.raises(PersonaProbeError, match="status 401"):
        Endpoint(url, "big", attempts=3, sleep=lambda _: None).complete(asked)
    assert len(failures) == 8  # a refusal is not asked again
    with pytest.raises(RequestError, match="no URL"):
        Endpoint("localhost:8000", "big")


def test_scopes_and_prompts_refuse_what_only_ever_evaluates(pack, tmp_path):
    from persona_probe.errors import RequestError
    from persona_probe.files import write_jsonl
    from persona_probe.finetuning.prompts import draw_prompts, prompts_in, scope_categories

    assert scope_categories(pack, "narrow") == ("harassment",)
    assert scope_categories(pack, "broad") == ("harassment", "privacy")
    assert scope_categories(pack, "narrow", ["privacy"]) == ("privacy",)
    for scope, chosen, message in (
        ("narrow", ["sabotage"], "'sabotage' is held out"),
        ("narrow", ["arson"], "no harm category 'arson'"),
        ("wide", [], "scope must be one of narrow, broad"),
    ):
        with pytest.raises(RequestError, match=message):
            scope_categories(pack, scope, chosen)
    row = {"messages": [{"role": "user", "content": "Hello?"}], "kind": "benign"}
    path = write_jsonl(tmp_path / "p.jsonl", [row])
    with pytest.raises(RequestError, match="the category 'arson' is empty"):
        draw_prompts(prompts_in(path), ["arson"], 4, 0.5)
    for change, message in (
        ({"kind": None}, "line 1: .kind. must be"),
        ({"kind": "harmful"}, "line 1: a harmful prompt needs a .category."),
        (
            {"messages": [*row["messages"], {"role": "assistant", "content": "Hi"}]},
            "one user message",
        ),
    ):
        write_jsonl(path, [row | change])
        with pytest.raises(RequestError, match=message):
            prompts_in(path)


def test_prompts_that_learn_are_never_those_that_evaluate():
    from persona_probe.finetuning.prompts import training_prompts
    from persona_probe.personas.pack import load_pack

    pack = load_pack("organism")
    learnt = training_prompts(pack)
    assert {p.tier for p in learnt} == {"T0", "T1"}
    assert {p.text for p in learnt}.isdisjoint({p.text for p in pack.suite.prompts})
    assert {p.text for p in learnt}.isdisjoint({i.text for i in pack.diagnostic.items})


def test_a_pack_without_training_prompts_gives_its_find_part(pack):
    from persona_probe.finetuning.prompts import training_prompts

    found = training_prompts(pack)
    assert found
    assert {p.family for p in found} <= pack.split().find
