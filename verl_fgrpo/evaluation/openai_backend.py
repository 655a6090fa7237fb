"""Samples from an OpenAI-compatible server (vllm serve, sglang, ...) through /v1/chat/completions, one request each.

Why not the `openai` package: what it would take off us is a loop of retries. It is not among verl's dependencies, and
it treats a refused prompt, which a run has to survive, like any other error.
"""

import contextlib
import queue
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from verl_fgrpo.core.command import redact
from verl_fgrpo.core.rows import MAX_COUNT, shown
from verl_fgrpo.evaluation.generation import Decoding, Generated, Request
from verl_fgrpo.evaluation.samples import REFUSED

FIRST_SECONDS = 3.0  # in which a server that is up answers the first, small question
REFUSALS = (400, 413, 422)  # the request is not to the server's liking: this prompt, not the next
TRANSIENT = (408, 409, 425, 429)  # and all from 500
ATTEMPTS = 6  # per request, with doubling pauses from one second: TRANSIENT, connection errors, answers that are none
TIMEOUT = 3600.0  # seconds a response may take
MAX_CONCURRENCY = 4096
OWN = ("model", "messages", "temperature", "top_p", "max_tokens", "seed", "n", "stream")  # what a request says itself


class ServerError(RuntimeError):
    """The server cannot be used; the message says what to do."""


class OpenAIBackend:
    """A server that speaks the chat completions protocol.

    A prompt that the server refuses (HTTP 400, 413 or 422, or whatever else goes wrong for good while it answers
    another prompt) comes back with the finish reason "refused" and the server's words. A server that answers no other
    prompt ends the run, which can be resumed.

    Args:
        url: such as http://localhost:8000/v1.
        model: name the server knows it by.
        concurrency: requests in flight.
        api_key: sent as bearer token if given; never stored or printed.
        extra_body: JSON values sent with every request, e.g. {"top_k": -1}; they go into the manifest.

    Raises:
        ValueError: an argument that cannot be meant.
        RuntimeError: no server answers there within 3 s, or it does not have the model.
    """

    def __init__(
        self,
        url: str,
        model: str,
        concurrency: int = 64,
        api_key: str | None = None,
        extra_body: dict[str, Any] | None = None,
    ) -> None:
        import httpx

        if not 1 <= concurrency <= MAX_CONCURRENCY:
            raise ValueError(f"concurrency={concurrency} must be from 1 to {MAX_CONCURRENCY} requests in flight")
        if clash := [key for key in OWN if key in (extra_body or {})]:
            raise ValueError(f"--extra-body has {', '.join(clash)}, which no request may change; use the options")
        self.url = _checked_url(url)
        self.model = model
        self.concurrency = concurrency
        self.extra_body = extra_body or {}
        self._key = _checked_key(api_key)
        self._stop = threading.Event()
        try:
            self._client = httpx.Client(
                timeout=httpx.Timeout(TIMEOUT, connect=10.0),
                headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
                limits=httpx.Limits(max_connections=concurrency),
            )
        except (httpx.InvalidURL, OSError) as error:
            raise ValueError(f"a proxy or SSL_CERT_FILE of the environment cannot be used ({error})") from error
        models = self._models()
        if models and model not in models:  # a server that loads models on demand may list none
            raise ServerError(f"the server at {self.url} has no model {model!r}; it has {sorted(models)}")
        self._root = models.get(model)

    def identity(self) -> dict[str, Any]:
        # A server does not tell a hash of its weights: the name it serves them under has to do.
        return {"backend": "openai", "model": self.model, "server_root": self._root, "extra_body": self.extra_body}

    def generate(self, requests: Iterable[Request], decoding: Decoding) -> Iterator[Generated]:
        """Yield every request's sample, as soon as it is there. Left early, requests in flight are abandoned."""
        source = iter(requests)
        reading = threading.Lock()
        results: queue.SimpleQueue[Generated | BaseException | None] = queue.SimpleQueue()
        stop = self._stop = threading.Event()

        def work() -> None:
            try:
                while not stop.is_set():
                    with reading:
                        request = next(source, None)
                    if request is None:
                        break
                    results.put(self._complete(request, decoding))
                results.put(None)
            except BaseException as error:
                results.put(error)

        # Daemons: a thread that waits for a server that does not answer must not keep the process alive.
        threads = [threading.Thread(target=work, daemon=True) for _ in range(self.concurrency)]
        for thread in threads:
            thread.start()
        try:
            running = len(threads)
            while running:
                item = results.get()
                if isinstance(item, BaseException):
                    raise item
                if item is None:
                    running -= 1
                else:
                    yield item
        finally:
            stop.set()

    def _complete(self, request: Request, decoding: Decoding) -> Generated:
        body: dict[str, Any] = {
            "model": self.model,
            "messages": list(request.prompt.messages),
            "temperature": decoding.temperature,
            "top_p": decoding.top_p,
            "max_tokens": decoding.max_tokens,
            "seed": request.seed,
            "n": 1,
            **self.extra_body,
        }
        if decoding.top_k != -1:
            body["top_k"] = decoding.top_k
        if request.prompt.template:
            body["chat_template_kwargs"] = request.prompt.template
        name = f"{request.key[0]}/{request.key[1]} sample {request.key[2]}"
        told, healthy = "", False
        for attempt in range(ATTEMPTS):
            response = self._post(body)
            if isinstance(response, Exception):
                problem = self._masked(str(response)) or type(response).__name__
            elif response.status_code in REFUSALS:
                told, healthy = self._words(response), True
                break
            elif response.status_code not in TRANSIENT and 400 <= response.status_code < 500:
                told, healthy = self._words(response), self._answers_another(body)
                break
            else:
                try:
                    response.raise_for_status()
                    return Generated(request.key, request.seed, *read_answer(response.json()))
                except Exception as error:  # a status, no JSON, or JSON that is no answer
                    problem = self._words(response) if response.status_code != 200 else self._masked(str(error))
            told = f"no answer in {attempt + 1} attempts ({problem})"
            busy = not isinstance(response, Exception) and response.status_code in TRANSIENT  # whatever the prompt
            healthy = not busy and attempt + 2 >= ATTEMPTS and (healthy or self._answers_another(body))
            if attempt + 1 < ATTEMPTS and self._stop.wait(2.0**attempt):
                break
        if healthy:
            return Generated(request.key, request.seed, "", 0, REFUSED, told)
        raise ServerError(f"{self.url}, {name}: {told}")

    def _answers_another(self, body: dict[str, Any]) -> bool:
        """Whether the server answers the same request with another prompt: if so, it is not the server that is ill."""
        response = self._post({**body, "messages": [{"role": "user", "content": "What is 1 + 1?"}]})
        with contextlib.suppress(Exception):  # a status, no JSON, or JSON that is no answer
            return response.status_code == 200 and bool(read_answer(response.json()))
        return False

    def _post(self, body: dict[str, Any]) -> Any:
        """The server's response, or why there is none."""
        import httpx

        try:
            return self._client.post(self.url + "/chat/completions", json=body)
        except httpx.RequestError as error:
            return error

    def _models(self) -> dict[str, Any]:
        """{name: root} of the models that the server lists; answered within `FIRST_SECONDS` or not at all."""
        answers: queue.SimpleQueue[Any] = queue.SimpleQueue()

        def ask() -> None:
            try:
                answers.put(self._client.get(self.url + "/models", timeout=FIRST_SECONDS))
            except Exception as error:
                answers.put(error)

        started = time.monotonic()
        threading.Thread(target=ask, daemon=True).start()
        try:
            answer = answers.get(timeout=FIRST_SECONDS)
        except queue.Empty:
            answer = TimeoutError(f"nothing came within {FIRST_SECONDS:g} s")
        where = f"{self.url}/models"
        if isinstance(answer, Exception):
            raise ServerError(
                f"no server answers at {where} ({self._masked(str(answer)) or type(answer).__name__}, after "
                f"{time.monotonic() - started:.1f} s): start it, wait until it is up, or correct --url"
                + ("; the environment sets a proxy, NO_PROXY excepts hosts" if getproxies().keys() - {"no"} else "")
            )
        if answer.status_code in (401, 403):
            raise ServerError(f"{where}: HTTP {answer.status_code}: set OPENAI_API_KEY to a key that it accepts")
        try:
            answer.raise_for_status()
            return {str(entry["id"]): entry.get("root") for entry in answer.json()["data"]}
        except Exception:
            raise ServerError(
                f"{where} lists no models ({self._words(answer)}): is it an OpenAI-compatible server, and does --url "
                "end with /v1?"
            ) from None

    def _words(self, response: Any) -> str:
        return self._masked(f"HTTP {response.status_code}: {' '.join(response.text[:300].split())}")

    def _masked(self, text: str) -> str:
        return redact(text.replace(self._key, "***") if self._key else text)


def read_answer(answer: Any) -> tuple[str, int, str]:
    """(response, number of tokens, finish reason) of a chat completion.

    Thinking that the server split off (`reasoning_content`, in newer servers `reasoning`) is put back in front, in
    <think> tags, which stay open where nothing follows; so are parts of type "thinking" of a content that is a list of
    parts. A refusal of the model stands in for its missing content. A reason that is not one of `FINISH_REASONS` is
    "unknown", and so is "stop" where there is no text: a response that is empty and ended by itself is `content: ""`,
    not `null`. The number of tokens is -1 where `usage` does not say it.

    Raises:
        ValueError: it has no choice with a message.
    """
    try:
        choice = answer["choices"][0]
        message = choice["message"]
        content, thinking = message.get("content"), message.get("reasoning_content") or message.get("reasoning")
        if isinstance(content, list):
            thinking, content = thinking or _parts(content, "thinking"), _parts(content, "text")
        content = message.get("refusal") if content is None else content
    except (LookupError, TypeError, AttributeError):
        raise ValueError(f"the server's answer has no choices[0].message ({shown(answer)})") from None
    if not isinstance(content, str | None) or not isinstance(thinking, str | None):
        raise ValueError("content and reasoning of the server's answer must be text, parts of text, or null")
    reason = choice.get("finish_reason")
    by_itself = reason == "stop" and (content is not None or thinking)
    if not by_itself and reason not in ("length", "abort", "content_filter"):
        reason = "unknown"
    text = content or ""
    if thinking:
        text = f"<think>{thinking}" if content is None else f"<think>{thinking}</think>{content}"
    usage = answer.get("usage")
    tokens = usage.get("completion_tokens") if isinstance(usage, dict) else None
    known = isinstance(tokens, int) and not isinstance(tokens, bool) and 0 <= tokens < MAX_COUNT
    return text, tokens if known else -1, reason  # type: ignore[return-value]


def _parts(content: Any, kind: str) -> Any:
    """The text in the parts of one kind, [{"type": "text", "text": ...}, ...]; null without one."""
    if not isinstance(content, list):
        return content
    if other := {part["type"] for part in content} - {"text", "thinking"}:
        raise ValueError(f"content of the server's answer has parts of type {shown(sorted(other))}, but must be text")
    return "".join(_parts(part[kind], "text") for part in content if part["type"] == kind) or None


def _checked_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        whole = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        whole = False
    if not whole or any(character.isspace() for character in url):
        raise ValueError(f"--url {redact(url)!r} must look like http://localhost:8000/v1")
    return url.rstrip("/")


def _checked_key(key: str | None) -> str:
    """The key without blanks around it. Raises ValueError, which does not show it, if it cannot stand in a header."""
    key = (key or "").strip()
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ValueError("OPENAI_API_KEY has a blank, a line break or a character outside ASCII in it: set it anew")
    return key
