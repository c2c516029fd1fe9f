"""The page on a real server: who is refused, how it streams, and what bad requests get."""

import json
import socket
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

SETTING = {"layer": 1, "strengths": {"virtue": 2.0}, "positions": "both"}
ASKED = SETTING | {"text": "Tell the truth.", "colour": "virtue", "system": "You are kind."}


def post(address: str, path: str, value: Any, **headers: str) -> httpx.Response:
    own = {"Origin": address, **headers}
    return httpx.post(f"{address}/{path}", json=value, headers=own, timeout=60)


def pieces_of(answer: httpx.Response) -> list[dict[str, Any]]:
    return [json.loads(line) for line in answer.text.splitlines()]


@pytest.mark.parametrize("path", ["", "page.css", "page.js", "icon.svg", "about"])
def test_the_page_and_its_parts_come_with_a_strict_policy(path: str, address: str) -> None:
    answer = httpx.get(f"{address}/{path}")
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    # Nothing points elsewhere but a name space.
    assert {part for part in answer.text.split('"') if "://" in part} <= {
        "http://www.w3.org/2000/svg"
    }


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "0.0.0.0", "", "[::1"]
)
def test_another_host_name_is_refused(host: str, address: str) -> None:
    for path in ("", "about"):
        answer = httpx.get(f"{address}/{path}", headers={"Host": host})
        assert answer.status_code in (400, 403)
        assert "organism" not in answer.text
    assert post(address, "profile", SETTING, Host=host).status_code in (400, 403)


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "LOCALHOST"])
def test_this_machine_is_served_under_its_own_names_and_any_tunnelled_port(
    name: str, address: str
) -> None:
    host = f"{name}:9999"
    assert httpx.get(f"{address}/about", headers={"Host": host}).status_code == 200
    answer = post(address, "profile", SETTING, Host=host, Origin=f"http://{host}")
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "null",
        "http://localhost:3000",
        "https://127.0.0.1",
        "http://127.0.0.1:1",
        "http://127.0.0.1.evil.example",
    ],
)
@pytest.mark.parametrize("path", ["reply", "profile", "save"])
def test_another_origin_is_refused(origin: str, path: str, address: str) -> None:
    answer = post(address, path, ASKED, Origin=origin)
    assert answer.status_code == 403
    assert "origin" in answer.json()["error"]
    assert "access-control-allow-origin" not in answer.headers


def test_a_post_without_an_origin_is_refused(address: str) -> None:
    assert httpx.post(f"{address}/profile", json=SETTING).status_code == 403
    asked = httpx.options(f"{address}/profile", headers={"Origin": "http://evil.example"})
    assert asked.status_code == 403


def test_what_the_browser_says_about_other_sites_is_believed(address: str) -> None:
    foreign = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
    assert httpx.get(f"{address}/about", headers=foreign).status_code == 403
    clicked = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert httpx.get(address, headers=clicked).status_code == 200


def test_only_loopback_is_listened_to() -> None:
    from persona_probe.playground.server import address_of, loopback_socket

    with loopback_socket(0) as listening:
        assert listening.getsockname()[0] == "127.0.0.1"
        assert address_of(listening).startswith("http://127.0.0.1:")


def test_a_taken_port_is_one_sentence() -> None:
    from persona_probe.errors import RequestError
    from persona_probe.playground.server import loopback_socket

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(RequestError, match="give another with --port, 0 for any"):
            loopback_socket(other.getsockname()[1])


def test_both_replies_stream_token_by_token(address: str, session: Any) -> None:
    from persona_probe.playground import Question

    times: list[float] = []
    with httpx.stream(
        "POST", f"{address}/reply", json=ASKED, headers={"Origin": address}, timeout=60
    ) as answer:
        assert answer.status_code == 200
        found = []
        for line in answer.iter_lines():
            times.append(time.perf_counter())
            found.append(json.loads(line))
    assert found[-1] == {"end": "done"}
    assert found[:-1] == list(session.reply(Question.from_json(ASKED)))
    assert {piece["row"] for piece in found[:-1]} == {0, 1}
    assert times[-1] - times[0] > 0.002, "all at once is no stream"


def test_a_new_reply_ends_the_one_before(session: Any, tmp_path: Path, serving: Any) -> None:
    """The reply in progress is held at its second token until the next one has been asked for."""
    from persona_probe.playground import Question

    held, asked_again = threading.Event(), threading.Event()

    class Slow(type(session)):  # type: ignore[misc]
        def reply(self, question: Any) -> Any:
            for number, piece in enumerate(super().reply(question)):
                if number == 2 and question.text == "first":
                    held.set()
                    assert asked_again.wait(30)
                yield piece

    slow = Slow(**{name: getattr(session, name) for name in session.__dataclass_fields__})
    answers: dict[str, list[dict[str, Any]]] = {}
    with serving(slow, tmp_path) as address:

        def ask(text: str) -> None:
            answers[text] = pieces_of(post(address, "reply", ASKED | {"text": text}))

        first = threading.Thread(target=ask, args=("first",))
        second = threading.Thread(target=ask, args=("second",))
        first.start()
        assert held.wait(30)
        second.start()
        time.sleep(0.3)  # until the second one stands in the queue
        asked_again.set()
        first.join(60)
        second.join(60)
    assert answers["first"][-1] == {"end": "replaced"}
    assert len(answers["first"]) == 3, "two tokens were out, no third follows"
    assert answers["second"][-1] == {"end": "done"}
    alone = session.reply(Question.from_json(ASKED | {"text": "second"}))
    assert answers["second"][:-1] == list(alone)
    assert session.model.active_adapter is None


def test_a_client_that_leaves_leaves_the_model_to_the_next(address: str) -> None:
    for _ in range(3):
        with httpx.stream(
            "POST", f"{address}/reply", json=ASKED, headers={"Origin": address}, timeout=60
        ) as answer:
            next(answer.iter_lines())
    assert pieces_of(post(address, "reply", ASKED))[-1] == {"end": "done"}


def test_requests_at_once_are_all_answered_as_if_alone(address: str) -> None:
    alone = post(address, "profile", SETTING).json()
    found: list[Any] = []
    threads = [
        threading.Thread(target=lambda: found.append(post(address, "profile", SETTING).json()))
        for _ in range(4)
    ]
    reply = threading.Thread(target=lambda: found.append(post(address, "reply", ASKED).text))
    for thread in [*threads, reply]:
        thread.start()
    for thread in [*threads, reply]:
        thread.join(60)
    assert len(found) == 5
    assert [value for value in found if isinstance(value, dict)] == [alone] * 4


def test_saving_tells_where(address: str) -> None:
    answer = post(address, "save", SETTING | {"name": "kept"})
    assert answer.status_code == 200, answer.text
    saved = answer.json()
    assert Path(saved["vector"]).is_file()
    assert saved["command"].startswith("persona-probe steer ")
    again = post(address, "save", SETTING | {"name": "kept"})
    assert again.status_code == 400
    assert "exists already" in again.json()["error"]


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("reply", {}, "the request has no 'text'"),
        ("reply", ASKED | {"text": ""}, "say something"),
        ("reply", ASKED | {"text": "long " * 400}, "tiny-llama reads 256"),
        ("reply", ASKED | {"colour": "greed"}, "no direction of 'greed'"),
        ("reply", ASKED | {"layer": 7}, "at layer 7"),
        ("reply", ASKED | {"temperature": -1}, "temperature at least 0"),
        ("profile", {"layer": 1, "strengths": {"greed": 1}}, "no direction of 'greed'"),
        ("profile", [1], "should be a JSON object, got list"),
        ("save", SETTING | {"name": "../up"}, "cannot name a file"),
        ("save", SETTING, "no 'name'"),
        ("reply", ASKED | {"text": "x" * 70_000}, "longer than 65536 bytes"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_request_gets_one_sentence(path: str, value: Any, said: str, address: str) -> None:
    answer = post(address, path, value)
    assert answer.status_code == 400
    assert said in answer.json()["error"]


def test_what_is_not_json_is_refused(address: str) -> None:
    own = {"Origin": address}
    for body, kind, said in [
        (b"{", "application/json", "not JSON"),
        (b"\xff", "application/json", "not JSON"),
        (b"{}", "text/plain", "set the content type"),
    ]:
        headers = own | {"Content-Type": kind}
        answer = httpx.post(f"{address}/profile", content=body, headers=headers)
        assert answer.status_code == 400
        assert said in answer.json()["error"]


def test_other_paths_and_methods(address: str) -> None:
    assert httpx.get(f"{address}/reply").status_code == 405
    assert httpx.get(f"{address}/../setting.py").status_code == 404
    assert httpx.get(f"{address}/nothing").json() == {"error": "Not Found"}


def test_a_missing_extra_is_one_clear_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import sys

    from typer.testing import CliRunner

    from persona_probe.cli.app import app

    for name in ("persona_probe.playground.server", "uvicorn"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    done = CliRunner().invoke(app, ["playground", "organism", "--directions", str(tmp_path)])
    assert "the playground needs uvicorn: pip install" in str(done.exception)
    assert getattr(done.exception, "exit_code", None) == 2
