"""Servers that refuse, stall, answer nonsense or are not there; options and keys that cannot be meant; Ctrl-C."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from test_generation import PROBLEMS, Server, requests_for, server  # noqa: F401 - `server` is a fixture

from verl_fgrpo.cli import main
from verl_fgrpo.evaluation.generation import Decoding, plan_text, sample_run
from verl_fgrpo.evaluation.grading import grade_store
from verl_fgrpo.evaluation.openai_backend import FIRST_SECONDS, OpenAIBackend, read_answer
from verl_fgrpo.evaluation.problems import save_problems
from verl_fgrpo.evaluation.samples import Sample, SampleStore
from verl_fgrpo.evaluation.summary import load_run, verdict_rows

N = 24


def chat(content: Any, reason: str | None = "stop", **message: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"content": content, **message}, "finish_reason": reason}], "usage": None}


def sample(server: Server, run: Path, problems: Any = PROBLEMS, **options: Any) -> list[Sample]:  # noqa: F811
    backend = OpenAIBackend(server.url, "tiny", concurrency=3)
    return list(
        sample_run(run, problems, backend, N, Decoding(max_tokens=50), "none", progress=False, **options).read()
    )


PARTS = [{"type": "text", "text": "2 + 2"}]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (chat("four", "stop"), ("four", -1, "stop")),
        (chat("fo", "length"), ("fo", -1, "length")),
        (chat("fo", "abort"), ("fo", -1, "abort")),
        (chat("", "content_filter"), ("", -1, "content_filter")),
        (chat("four", "tool_calls"), ("four", -1, "unknown")),
        (chat("four", None), ("four", -1, "unknown")),
        (chat("", "stop"), ("", -1, "stop")),  # empty, and ended by itself
        (chat(None, "stop"), ("", -1, "unknown")),  # no text at all
        (chat(None, "length"), ("", -1, "length")),
        (chat("4", reasoning="2 + 2"), ("<think>2 + 2</think>4", -1, "stop")),
        (chat("4", reasoning_content="2 + 2"), ("<think>2 + 2</think>4", -1, "stop")),
        (chat("4", reasoning_content=None, reasoning=""), ("4", -1, "stop")),
        (chat(None, "length", reasoning="2 + 2 is"), ("<think>2 + 2 is", -1, "length")),
        (chat(None, "stop", reasoning="2 + 2 is"), ("<think>2 + 2 is", -1, "stop")),
        (chat([{"type": "text", "text": "fo"}, {"type": "text", "text": "ur"}]), ("four", -1, "stop")),
        (chat([{"type": "thinking", "thinking": PARTS}, *PARTS]), ("<think>2 + 2</think>2 + 2", -1, "stop")),
        (chat([{"type": "thinking", "thinking": PARTS}], "length"), ("<think>2 + 2", -1, "length")),
        (chat([], "stop"), ("", -1, "unknown")),
        (chat(None, "stop", refusal="I cannot."), ("I cannot.", -1, "stop")),
        ({**chat("x"), "usage": {"completion_tokens": 7}}, ("x", 7, "stop")),
        ({**chat("x"), "usage": {"completion_tokens": None}}, ("x", -1, "stop")),
        ({**chat("x"), "usage": {"completion_tokens": "7"}}, ("x", -1, "stop")),
        ({**chat("x"), "usage": {"completion_tokens": 10**30}}, ("x", -1, "stop")),
        ({"choices": chat("x")["choices"]}, ("x", -1, "stop")),
    ],
)
def test_answers_golden(answer: Any, expected: tuple[str, int, str]) -> None:
    assert read_answer(answer) == expected


@pytest.mark.parametrize(
    "answer",
    [None, 1, "x", [], {}, {"choices": None}, {"choices": []}, {"choices": [None]}, {"choices": [{"message": None}]}]
    + [chat([{"text": "x"}]), chat(["x"]), chat([{"type": "image_url"}]), chat("x", reasoning=1)],
)
def test_answers_that_are_none(answer: Any) -> None:
    with pytest.raises(ValueError, match="server's answer"):
        read_answer(answer)


@pytest.mark.filterwarnings("ignore:the .* new samples")
def test_a_refused_prompt_is_recorded_named_and_skipped(server: Server, tmp_path: Path) -> None:  # noqa: F811
    asked: list[str] = []

    def answer(body: dict[str, Any]) -> tuple[int, Any]:
        asked.append(body["messages"][-1]["content"])
        return (400, {"error": "prompt is too long"}) if asked[-1] == "so" else (200, chat("\\boxed{2}"))

    server.answer = answer
    said: list[str] = []
    run = tmp_path / "run"
    rows = sample(server, run, say=said.append)
    assert sorted((row.problem_id, row.sample_idx, row.finish_reason, row.response) for row in rows) == [
        *(("a", index, "refused", "") for index in range(N)),
        *(("b", index, "stop", "\\boxed{2}") for index in range(N)),
    ]
    assert all(row.detail == 'HTTP 400: {"error": "prompt is too long"}' for row in rows if row.problem_id == "a")
    assert len(said) == 1 and "toy/a (HTTP 400" in said[0]
    assert asked.count("so") < N  # those in flight when the first was refused
    asked.clear()
    assert len(sample(server, run)) == 2 * N and not asked  # nothing is left to do
    plan = plan_text(run, PROBLEMS, N, Decoding())
    assert "to draw: 0 " in plan and f"refused before: {N} samples, of 1 prompts; --retry-refused asks again" in plan
    assert f"to draw: {N} " in plan_text(run, PROBLEMS, N, Decoding(), retry_refused=True)
    assert "refused" not in plan_text(run, PROBLEMS[1:], N, Decoding())
    grade_store(SampleStore(run / "samples"), run / "verdicts", PROBLEMS, progress=False)
    [counts] = verdict_rows({"run": load_run(run)})
    assert (counts["correct"], counts["refused"], counts["wrong"]) == (N, N, 0)

    server.answer = lambda body: (200, chat("\\boxed{1}"))  # the server was given a longer context
    assert {row.response for row in sample(server, run, retry_refused=True)} == {"\\boxed{1}", "\\boxed{2}"}
    grade_store(SampleStore(run / "samples"), run / "verdicts", PROBLEMS, progress=False)
    [counts] = verdict_rows({"run": load_run(run)})
    assert (counts["correct"], counts["refused"]) == (2 * N, 0)


@pytest.mark.filterwarnings("ignore:the .* new samples")
@pytest.mark.parametrize(
    ("status", "content"),
    [(404, {"error": "blocked"}), (500, {"error": "too long"}), (200, {"error": "too long"}), (200, {"choices": []})],
)
def test_what_fails_for_one_prompt_alone_is_a_refusal_too(
    server: Server,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    content: Any,
) -> None:
    monkeypatch.setattr("threading.Event.wait", lambda event, timeout=None: event.is_set())  # no pauses
    server.answer = lambda body: (200, chat("x")) if body["messages"][-1]["content"] != "so" else (status, content)
    said: list[str] = []
    rows = sample(server, tmp_path / "run", say=said.append)
    assert sorted((row.problem_id, row.finish_reason) for row in rows) == [("a", "refused")] * N + [("b", "stop")] * N
    told = {row.detail for row in rows if row.problem_id == "a"}
    assert len(told) == 1 and (f"HTTP {status}" in told.pop() if status != 200 else "no answer in 6" in told.pop())
    assert len(said) == 1 and "toy/a (" in said[0]


def test_a_limit_of_the_rate_is_no_refusal(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setattr("threading.Event.wait", lambda event, timeout=None: event.is_set())  # no pauses
    server.answer = lambda body: (200, chat("x")) if body["messages"][-1]["content"] != "so" else (429, "slower")
    with pytest.raises(RuntimeError, match="no answer in 6 attempts .*429"):
        sample(server, tmp_path / "run")
    assert all(row.finish_reason == "stop" for row in SampleStore(tmp_path / "run" / "samples").read())


@pytest.mark.filterwarnings("ignore:the .* new samples")
def test_a_server_that_refuses_everything_refuses_the_settings(server: Server, tmp_path: Path) -> None:  # noqa: F811
    server.answer = lambda body: (400, {"error": "no such parameter"})
    with pytest.raises(RuntimeError, match="refused every prompt.*toy/a .*no such parameter"):
        sample(server, tmp_path / "run")
    assert list(SampleStore(tmp_path / "run" / "samples").read()) == []
    # Where others were answered before, it is this prompt again.
    server.answer = lambda body: (200, chat("x"))
    sample(server, tmp_path / "run", PROBLEMS[1:])
    server.answer = lambda body: (422, {"error": "bad"})
    assert sorted(row.finish_reason for row in sample(server, tmp_path / "run")) == ["refused"] * N + ["stop"] * N


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((200, {"choices": []}), r"toy/a sample 0: no answer in 6 attempts \(the server's answer has no choices"),
        ((503, {"error": "busy"}), r"no answer in 6 attempts \(HTTP 503: .*busy"),
        ((404, {"error": "gone"}), r"toy/a sample 0: HTTP 404: .*gone"),
        ((401, {"error": "your key sk-1234567890 is old"}), r"HTTP 401: .*your key \*\*\* is old"),
    ],
)
def test_what_ends_a_run_names_the_sample(
    server: Server,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    answer: tuple[int, Any],
    message: str,
) -> None:
    monkeypatch.setattr("threading.Event.wait", lambda event, timeout=None: event.is_set())  # no pauses
    server.answer = lambda body: answer
    backend = OpenAIBackend(server.url, "tiny", concurrency=1, api_key="sk-1234567890")
    with pytest.raises(RuntimeError, match=message):
        list(backend.generate(requests_for(PROBLEMS[0], 3), Decoding(max_tokens=5)))


@pytest.fixture
def silent() -> Iterator[str]:
    """A port where connections are accepted and nothing is ever said."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(16)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"


def test_the_first_connection_fails_soon_with_a_remedy(silent: str) -> None:
    assert FIRST_SECONDS == 3.0  # a wait without that limit would be an hour, as for an answer, or for good
    for url, why in ((silent, "timed out|nothing came within 3 s"), ("http://127.0.0.1:9/v1", "refused")):
        remedy = rf"no server answers at http://127.0.0.1:.*({why}).*start it, wait.*or correct --url"
        with pytest.raises(RuntimeError, match=remedy):
            OpenAIBackend(url, "tiny")


def test_a_server_of_another_kind_is_told(server: Server) -> None:  # noqa: F811
    def json_of(content: Any) -> Any:
        return type("Answer", (), {"json": lambda self: content, "status_code": 200, "text": str(content)})()

    for content in ([], {}, {"data": [1]}, {"data": None}, "x"):
        backend = OpenAIBackend(server.url, "tiny")
        answer = json_of(content)
        answer.__class__.raise_for_status = lambda self: None
        backend._client.get = lambda *arguments, answer=answer, **options: answer  # type: ignore[method-assign]
        with pytest.raises(RuntimeError, match="lists no models.*end with /v1"):
            backend._models()


@pytest.mark.parametrize("url", ["", "localhost:8000", "ftp://host/v1", "http://", "http://h:port/v1", "http://a b/v1"])
def test_malformed_addresses(url: str) -> None:
    with pytest.raises(ValueError, match="must look like http://localhost:8000/v1"):
        OpenAIBackend(url, "tiny")


def test_what_a_request_says_itself_is_not_overridden() -> None:
    with pytest.raises(ValueError, match="--extra-body has temperature, seed, which no request may change"):
        OpenAIBackend("http://127.0.0.1:9/v1", "tiny", extra_body={"seed": 1, "temperature": 0, "top_k": -1})


def test_proxies_of_the_environment_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://\x01")
    with pytest.raises(ValueError, match="a proxy or SSL_CERT_FILE of the environment cannot be used"):
        OpenAIBackend("http://127.0.0.1:9/v1", "tiny")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    with pytest.raises(RuntimeError, match="no server answers .*; the environment sets a proxy, NO_PROXY excepts"):
        OpenAIBackend("http://127.0.0.1:9/v1", "tiny")


def test_keys_are_cleaned_or_refused_and_never_shown(
    server: Server,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert OpenAIBackend(server.url, "tiny", api_key=" sk-secret \n")._key == "sk-secret"
    save_problems(PROBLEMS, tmp_path / "p.jsonl")
    command = ["eval", "sample", "--run", str(tmp_path / "run"), "--model", "tiny", "--backend", "openai"]
    command += ["--problems", str(tmp_path / "p.jsonl"), "--num-samples", "2"]
    for key in ("secret\nkey", "secret key", "secretk\u00e9y"):
        monkeypatch.setenv("OPENAI_API_KEY", key)
        assert main([*command, "--url", server.url]) == 1
        told = capfd.readouterr()
        assert "OPENAI_API_KEY has a blank, a line break" in told.err and "secret" not in told.err + told.out
    monkeypatch.setenv("OPENAI_API_KEY", "plainsecretkey\n")
    server.answer = lambda body: (403, {"error": "plainsecretkey is not welcome"})
    assert main([*command, "--url", server.url.replace("http://", "http://user:hiddenword@")]) == 1
    told = capfd.readouterr()
    assert "is not welcome" in told.err
    assert "plainsecretkey" not in told.err + told.out and "hiddenword" not in told.err + told.out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--concurrency", "-1"], "--concurrency: -1 must be a whole number from 1"),
        (["--concurrency", "100000"], "must be from 1 to 4096"),
        (["--num-samples", "0"], "--num-samples: 0 must be"),
        (["--limit", "0"], "--limit: 0 must be"),
        (["--limit", "-3"], "--limit: -3 must be"),
        (["--temperature", "-1"], "temperature=-1"),
        (["--temperature", "nan"], "--temperature: nan must be a finite number"),
        (["--tokens-per-second", "0"], "--tokens-per-second 0.0 must be positive"),
        (["--batch-size", "0"], "--batch-size: 0 must be"),
        (["--problems", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--url", "http://"], "must look like"),
    ],
)
def test_options_are_checked_before_anything_starts(
    server: Server,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    save_problems(PROBLEMS, tmp_path / "p.jsonl")
    command = ["eval", "sample", "--run", str(tmp_path / "run"), "--model", "tiny", "--backend", "openai"]
    command += ["--problems", str(tmp_path / "p.jsonl"), "--url", server.url]
    try:
        assert main([*command, *options]) == 1
    except SystemExit as usage:  # found by the parser
        assert usage.code == 2
    told = capsys.readouterr().err
    assert message in told and len(told.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists() and not server.bodies
    for flag in ("--extra-body", "--engine-kwargs"):
        for value in ("[1]", "{", "nonsense"):
            with pytest.raises(SystemExit):
                main([*command, flag, value])
            assert "JSON" in capsys.readouterr().err


def test_an_empty_file_of_problems_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "p.jsonl").write_text("")
    command = ["eval", "sample", "--run", str(tmp_path / "run"), "--model", "tiny", "--backend", "openai"]
    assert main([*command, "--problems", str(tmp_path / "p.jsonl")]) == 1
    assert "no problem" in capsys.readouterr().err and not (tmp_path / "run").exists()


@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c_ends_sampling_soon_and_keeps_what_was_drawn(
    server: Server,  # noqa: F811
    tmp_path: Path,
    presses: int,
) -> None:
    """Six answers, then a server that does not answer: Ctrl-C, once or twice in a row."""
    release = threading.Event()
    order = count(1)

    def answer(body: dict[str, Any]) -> tuple[int, Any]:
        if next(order) > 6:
            release.wait(600)
        return 200, chat("x")

    server.answer = answer
    save_problems(PROBLEMS, tmp_path / "p.jsonl")
    command = [sys.executable, "-m", "verl_fgrpo.cli", "eval", "sample", "--run", str(tmp_path / "run")]
    command += ["--model", "tiny", "--backend", "openai", "--problems", str(tmp_path / "p.jsonl"), "--url", server.url]
    command += ["--num-samples", "20", "--concurrency", "4"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while len(server.bodies) < 10:  # four more wait
        assert process.poll() is None
        time.sleep(0.01)
    started = time.monotonic()
    for _ in range(presses):
        process.send_signal(signal.SIGINT)
        time.sleep(0.05)
    out, err = process.communicate(timeout=600)
    seconds = time.monotonic() - started
    release.set()
    assert process.returncode == 130, err
    assert "Traceback" not in err and "interrupted; rerun to resume" in err
    rows = list(SampleStore(tmp_path / "run" / "samples").read())
    assert len(rows) == len(set(rows)) <= 6
    assert subprocess.run(command, capture_output=True).returncode == 0  # it goes on
    assert len(list(SampleStore(tmp_path / "run" / "samples").read())) == 40
    print(f"ended after {seconds:.2f} s")


def test_ctrl_c_ends_grading_and_its_workers(tmp_path: Path) -> None:
    import psutil

    run = tmp_path / "run"
    save_problems(PROBLEMS, run / "problems.jsonl")
    with SampleStore(run / "samples", {"model": "x"}).writer() as writer:
        for index in range(4):
            writer.append(Sample("toy", "a", index, 0, "\\boxed{9^{9^{9^{9}}}}" + " " * index, 1, "stop"))
    command = [sys.executable, "-m", "verl_fgrpo.cli", "eval", "grade", "--run", str(run), "--seconds", "300"]
    process = subprocess.Popen([*command, "--workers", "2"], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    family: list[psutil.Process] = []
    while not any(one.cpu_times().user > 1 for one in family if one.is_running()):
        assert process.poll() is None
        time.sleep(0.1)
        family = [one for one in psutil.Process(process.pid).children(recursive=True) if one.is_running()]
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 130 and "Traceback" not in err, err
    assert psutil.wait_procs(family, timeout=600)[1] == []
