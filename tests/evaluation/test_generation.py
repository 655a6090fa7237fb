"""Sampling: a tiny real model through transformers, and an OpenAI-compatible server on loopback."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from verl_fgrpo.evaluation.backends import TransformersBackend, prompt_tokens, resolve_model
from verl_fgrpo.evaluation.cli import main
from verl_fgrpo.evaluation.generation import Decoding, Request, plan_text, sample_run, weights_fingerprint
from verl_fgrpo.evaluation.grading import grade_store
from verl_fgrpo.evaluation.openai_backend import OpenAIBackend
from verl_fgrpo.evaluation.problems import Problem, save_problems
from verl_fgrpo.evaluation.prompts import BOXED, build_prompt
from verl_fgrpo.evaluation.rare_nll import Scorer, build_rare_set, load_rare_set, rarest, score_rare_set
from verl_fgrpo.evaluation.report_command import write_report
from verl_fgrpo.evaluation.samples import SampleStore, Score, sample_seed
from verl_fgrpo.evaluation.summary import load_run

WORDS = ["<end>", "<user>", "<system>", "<assistant>", "\\boxed{1}", "\\boxed{2}", "so", "then"]
PROBLEMS = [Problem("toy", name, text, "math", (gold,)) for name, text, gold in (("a", "so", "1"), ("b", "then", "2"))]


def make_model(folder: Path, seed: int) -> Path:
    """A Llama of 8 words and a few thousand random weights, in Hugging Face format."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    core = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="then"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<end>", pad_token="<end>")
    tokenizer.chat_template = (
        "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }} {% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        eos_token_id=0,
        bos_token_id=None,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.lm_head.weight.mul_(30)  # far from uniform, so that a wrong distribution shows
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "tiny", 0)


def requests_for(problem: Problem, count: int) -> list[Request]:
    prompt = build_prompt("none", problem)
    return [Request((*problem.key, index), sample_seed(0, *problem.key, index), prompt) for index in range(count)]


def test_a_sample_depends_on_its_seed_alone(model: Path) -> None:
    decoding = Decoding(max_tokens=12)
    requests = requests_for(PROBLEMS[0], 24)
    whole = {item.key: item for item in TransformersBackend(model, 24).generate(requests, decoding)}
    pieces = {item.key: item for item in TransformersBackend(model, 5).generate(requests[::-1], decoding)}
    assert whole == pieces
    assert len({item.response for item in whole.values()}) >= 5
    for item in whole.values():
        assert (item.finish_reason == "length") == (item.num_tokens == 12 and "<end>" not in item.response)


def test_first_token_follows_the_models_distribution(model: Path) -> None:
    import torch

    backend = TransformersBackend(model, 500)
    ids = torch.tensor([prompt_tokens(backend.tokenizer, build_prompt("none", PROBLEMS[0]))])
    with torch.inference_mode():
        logits = backend.model(input_ids=ids).logits[0, -1]
    for temperature, top_k in ((1.0, -1), (0.5, -1), (1.0, 2)):
        scaled = logits / temperature
        if top_k > 0:
            scaled = torch.where(scaled >= scaled.topk(top_k).values[-1], scaled, torch.tensor(-torch.inf))
        expected = torch.softmax(scaled.double(), -1).tolist()
        decoding = Decoding(temperature=temperature, top_k=top_k, max_tokens=1)
        drawn = Counter(
            item.response or "<end>" for item in backend.generate(requests_for(PROBLEMS[0], 2000), decoding)
        )
        for word, probability in zip(WORDS, expected, strict=True):
            error = 5 * np.sqrt(probability * (1 - probability) / 2000) + 1e-9
            shown = "<end>" if word == "<end>" else word
            assert drawn[shown] / 2000 == pytest.approx(probability, abs=error)


def test_prompts_are_the_presets(model: Path) -> None:
    math = PROBLEMS[0]
    follow = Problem("ifeval", "1", "Do it.", "ifeval", extra={})
    assert build_prompt("qwen2.5", math).messages[0] == {"role": "system", "content": BOXED}
    assert build_prompt("qwen2.5", follow).messages[0]["content"] == "You are a helpful assistant."
    assert build_prompt("qwen3", follow).messages == ({"role": "user", "content": "Do it."},)
    assert build_prompt("qwen3", follow).template == {"enable_thinking": False}
    assert build_prompt("qwen3", math).template == {"enable_thinking": True}
    with pytest.raises(ValueError, match="preset 'x' is unknown"):
        build_prompt("x", math)
    assert prompt_tokens(TransformersBackend(model).tokenizer, build_prompt("none", math)) == [
        1,
        6,
        3,
    ]  # <user> so <assistant>


def test_plan_top_up_and_refusal(model: Path, tmp_path: Path) -> None:
    decoding = Decoding(max_tokens=8)
    run = tmp_path / "run"
    assert "to draw: 8 (at most 64 tokens)" in plan_text(run, PROBLEMS, 4, decoding)
    backend = TransformersBackend(model, 4)
    sample_run(run, PROBLEMS, backend, 4, decoding, "none", progress=False)
    before = list(SampleStore(run / "samples").read())
    plan = plan_text(run, PROBLEMS, 6, decoding)
    assert "already there: 8; to draw: 4 (at most 32 tokens)" in plan
    assert "estimate:" in plan and "none before" not in plan
    sample_run(run, PROBLEMS, backend, 6, decoding, "none", progress=False)
    after = list(SampleStore(run / "samples").read())
    assert after[:8] == before and len(after) == 12
    fresh = sample_run(tmp_path / "fresh", PROBLEMS, backend, 6, decoding, "none", progress=False)
    assert set(fresh.read()) == set(after)  # topping up gives what drawing at once gives
    with pytest.raises(ValueError, match="max_tokens: found 8, asked 9"):
        sample_run(run, PROBLEMS, backend, 6, Decoding(max_tokens=9), "none", progress=False)
    changed = [Problem("toy", "a", "other text", "math", ("1",))]
    with pytest.raises(ValueError, match="differs from the one sampled before"):
        sample_run(run, changed, backend, 6, decoding, "none", progress=False)


def test_dry_run_loads_no_model_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_problems(PROBLEMS, tmp_path / "p.jsonl")
    arguments = ["--model", "nowhere/at-all", "--problems", str(tmp_path / "p.jsonl"), "--backend", "vllm"]
    main(["sample", "--run", str(tmp_path / "run"), *arguments, "--dry-run", "--tokens-per-second", "1e4"])
    out = capsys.readouterr().out
    assert "toy (2): 2 prompts x 1024 samples = 2,048 responses of at most 8192 tokens" in out
    assert "estimate: 28 min" in out  # 2048 * 8192 / 1e4 s
    assert not (tmp_path / "run").exists()


def test_weights_fingerprint_sees_other_weights(model: Path, tmp_path: Path) -> None:
    assert weights_fingerprint(model) == weights_fingerprint(model)
    assert weights_fingerprint(model) != weights_fingerprint(make_model(tmp_path / "other", 1))
    with pytest.raises(ValueError, match="no weights"):
        weights_fingerprint(tmp_path)
    with pytest.raises(ValueError, match="neither config.json"):
        resolve_model(str(tmp_path), tmp_path)
    with pytest.raises(ValueError, match="no such folder, and not a hub id"):
        resolve_model("nonsense", tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": 0}, "temperature=0"),
        ({"temperature": -1.0}, "temperature=-1"),
        ({"temperature": float("nan")}, "temperature=nan"),
        ({"temperature": float("inf")}, "temperature=inf"),
        ({"top_p": 0}, "top_p=0"),
        ({"top_k": 0}, "top_k=0"),
        ({"max_tokens": 0}, "max_tokens=0"),
    ],
)
def test_decoding_is_checked(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Decoding(**arguments)


# --- rare-solution drift ------------------------------------------------------------------------------------------


def test_rarest_golden() -> None:
    # NLL per token: 1.0, 3.0, 2.0, 3.0; the rarest half is the two 3.0, in order of their keys.
    scores = [
        Score("b", "p", index, nll, length) for index, (nll, length) in enumerate([(4, 4), (9, 3), (2, 1), (3, 1)])
    ]
    assert [score.sample_idx for score in rarest(scores, 0.5)] == [1, 3]
    assert len(rarest(scores, 0.01)) == 1
    with pytest.raises(ValueError, match="share=0"):
        rarest(scores, 0)


def test_rare_drift_is_zero_for_the_base_and_the_nll_is_the_models(model: Path, tmp_path: Path) -> None:
    import torch

    run = tmp_path / "run"
    backend = TransformersBackend(model, 32)
    sample_run(run, PROBLEMS, backend, 64, Decoding(max_tokens=6), "none", progress=False)
    store = SampleStore(run / "samples")
    grade_store(store, run / "verdicts", PROBLEMS, progress=False)
    scorer = Scorer(model, batch_size=7)
    chosen = build_rare_set(run, scorer, tmp_path / "rare.json", 0.2, progress=False)
    assert load_rare_set(tmp_path / "rare.json") == chosen
    assert all(one.base_nll >= other.base_nll for one, other in zip(chosen, chosen[1:], strict=False))
    item = chosen[0]
    prompt = prompt_tokens(backend.tokenizer, build_prompt("none", item.problem))
    answer = [WORDS.index(word) for word in item.response.split()] + [0] * (item.finish_reason == "stop")
    with torch.inference_mode():
        log_p = torch.log_softmax(backend.model(input_ids=torch.tensor([prompt + answer])).logits[0], -1)
    by_hand = -sum(float(log_p[len(prompt) - 1 + index, token]) for index, token in enumerate(answer)) / len(answer)
    assert item.base_nll == pytest.approx(by_hand, rel=1e-5)
    same = score_rare_set(chosen, scorer, "base", progress=False)
    assert same["difference"] == pytest.approx(0, abs=1e-5)
    other = score_rare_set(chosen, Scorer(make_model(tmp_path / "other", 1)), "other", progress=False)
    assert abs(other["difference"]) > 0.1
    with pytest.raises(ValueError, match="a name is given twice in --models A=x A=y"):
        main(["nll", "score", "--set", f"{tmp_path}/rare.json", "--out", f"{tmp_path}/d", "--models", "A=x", "A=y"])
    store.path.rename(tmp_path / "old")  # lost, and drawn again with another seed
    sample_run(run, PROBLEMS, backend, 64, Decoding(max_tokens=6, seed=1), "none", progress=False)
    with pytest.raises(ValueError, match="is on another response: run `verl-fgrpo eval grade`"):
        build_rare_set(run, scorer, tmp_path / "x.json", 0.2, progress=False)
    grade_store(SampleStore(run / "samples"), run / "verdicts", PROBLEMS, progress=False)
    again = build_rare_set(run, scorer, tmp_path / "x.json", 0.2, progress=False)
    there = {row.response for row in SampleStore(run / "samples").read()}
    assert again != chosen and {item.response for item in again} <= there
    with pytest.raises(ValueError, match="sampled with weights"):
        build_rare_set(run, Scorer(tmp_path / "other"), tmp_path / "x.json", progress=False)


# --- OpenAI-compatible server -------------------------------------------------------------------------------------


@dataclass
class Server:
    """Answers as a function of (prompt, seed); fails now and then, as busy servers do."""

    url: str
    seen: Counter[int] = field(default_factory=Counter)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    fail_every: int = 0
    delay: float = 0.0
    answer: Any = None  # (body) -> (status, content) instead of the usual


def reply(prompt: str, seed: int) -> str:
    digest = hashlib.sha256(f"{prompt}|{seed}".encode()).digest()
    return f"so \\boxed{{{digest[0] % 3}}} " + "word " * (digest[1] % 5)


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server("")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: Any) -> None:
            pass

        def send_json(self, content: Any, status: int = 200) -> None:
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self) -> None:
            self.send_json({"data": [{"id": "tiny", "root": "/models/tiny"}]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            state.bodies.append(body)
            state.seen[body["seed"]] += 1
            time.sleep(state.delay)
            if state.fail_every and len(state.bodies) % state.fail_every == 0:
                self.send_json({"error": "busy"}, 503)
                return
            if state.answer is not None:
                status, content = state.answer(body)
                self.send_json(content, status)
                return
            text = reply(body["messages"][-1]["content"], body["seed"])
            choice = {"message": {"content": text}, "finish_reason": "stop"}
            self.send_json({"choices": [choice], "usage": {"completion_tokens": len(text.split())}})

    class QuietServer(ThreadingHTTPServer):
        request_queue_size = 64

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # clients are killed on purpose

    http = QuietServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    state.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield state
    http.shutdown()
    http.server_close()


def test_openai_backend_draws_every_sample_once_through_failures(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("threading.Event.wait", lambda event, timeout=None: event.is_set())  # no pauses
    server.fail_every = 7
    backend = OpenAIBackend(server.url, "tiny", concurrency=8, extra_body={"min_p": 0.0})
    decoding = Decoding(max_tokens=50, top_k=20)
    store = sample_run(tmp_path / "run", PROBLEMS, backend, 20, decoding, "qwen3", progress=False)
    samples = list(store.read())
    assert len(samples) == 40
    texts = {problem.key: problem.prompt for problem in PROBLEMS}
    for sample in samples:
        assert sample.response == reply(texts[sample.benchmark, sample.problem_id], sample.seed or 0)
    assert {key: server.bodies[0][key] for key in ("temperature", "top_p", "top_k", "max_tokens", "min_p", "n")} == {
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 20,
        "max_tokens": 50,
        "min_p": 0.0,
        "n": 1,
    }
    assert server.bodies[0]["chat_template_kwargs"] == {"enable_thinking": True}
    assert store.settings["server_root"] == "/models/tiny"
    with pytest.raises(RuntimeError, match=r"no model 'big'; it has \['tiny'\]"):
        OpenAIBackend(server.url, "big")


def test_a_server_that_ignores_the_seed_is_noticed(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "reply", lambda prompt, seed: "always the same")
    backend = OpenAIBackend(server.url, "tiny", concurrency=2)
    with pytest.warns(UserWarning, match="the server ignores temperature and seed"):
        sample_run(tmp_path / "run", PROBLEMS, backend, 3, Decoding(max_tokens=50), "none", progress=False)


# --- kill -9 ------------------------------------------------------------------------------------------------------


def kill_test(server: Server, tmp_path: Path, kills: int, seed: int) -> None:
    """Kill sampling and grading at random moments, `kills` times each; the report must equal an undisturbed run's."""
    rng = np.random.default_rng(seed)
    problems = [Problem("toy", f"p{number}", f"question {number}", "math", (str(number % 3),)) for number in range(12)]
    save_problems(problems, tmp_path / "problems.jsonl")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    script = str(Path(__file__).parents[2] / "scripts" / "eval_passk.py")
    common = ["--model", "tiny", "--problems", str(tmp_path / "problems.jsonl"), "--backend", "openai"]
    common += [
        "--url",
        server.url,
        "--num-samples",
        "64",
        "--max-tokens",
        "50",
        "--preset",
        "none",
        "--concurrency",
        "4",
    ]

    def command(name: str, run: Path) -> list[str]:
        if name == "sample":
            return [sys.executable, script, "sample", "--run", str(run), *common]
        return [sys.executable, script, "grade", "--run", str(run), "--workers", "1"]

    def disturb(name: str, run: Path) -> int:
        killed = 0
        stored = run / ("samples" if name == "sample" else "verdicts") / "parts"
        while True:
            before = len(list(stored.glob("*.gz"))) if stored.exists() else 0
            process = subprocess.Popen(
                command(name, run),
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            if killed < kills:
                # Half of the kills hit anywhere, start-up included; half wait until this session has begun to write.
                if rng.random() < 0.5:
                    while (
                        process.poll() is None and len(list(stored.glob("*.gz")) if stored.exists() else []) <= before
                    ):
                        time.sleep(0.002)
                    time.sleep(float(rng.uniform(0, 0.3)))
                else:
                    time.sleep(float(rng.uniform(0, 3)))
            if killed < kills and process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                killed += 1
                continue
            if process.wait(timeout=1200) == 0:
                return killed

    whole = tmp_path / "whole"
    for name in ("sample", "grade"):
        subprocess.run(command(name, whole), env=environment, check=True, capture_output=True, timeout=1200)
    server.delay = 0.01
    broken = tmp_path / "broken"
    for name in ("sample", "grade"):
        disturb(name, broken)

    def rows(run: Path, kind: str) -> list[str]:
        store = SampleStore(run / kind) if kind == "samples" else load_verdicts(run)
        return sorted(json.dumps(vars(row), sort_keys=True) for row in store.read())

    assert len(rows(broken, "samples")) == 12 * 64
    assert rows(broken, "samples") == rows(whole, "samples")
    assert rows(broken, "verdicts") == rows(whole, "verdicts")
    tables = []
    for run in (whole, broken):
        write_report({"run": load_run(run)}, run / "report")
        content = json.loads((run / "report" / "report.json").read_text())
        content.pop("provenance")
        tables.append(content)
    assert tables[0] == tables[1]


def load_verdicts(run: Path) -> Any:
    from verl_fgrpo.evaluation.samples import VerdictStore

    return VerdictStore(run / "verdicts")


def test_killed_once_nothing_is_lost_doubled_or_changed(server: Server, tmp_path: Path) -> None:
    kill_test(server, tmp_path, kills=1, seed=0)


@pytest.mark.full
def test_killed_fifty_times_nothing_is_lost_doubled_or_changed(server: Server, tmp_path: Path) -> None:
    kill_test(server, tmp_path, kills=50, seed=1)
