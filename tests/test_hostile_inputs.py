"""Every command with any JSON value in any field of its input files: an exit code, at most one line, no traceback."""

import contextlib
import copy
import gzip
import io
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_math import write_model

from verl_fgrpo.cli import main
from verl_fgrpo.evaluation.generation import Generated

Files = dict[str, Any]  # path below the folder -> a list of rows (JSON lines) or one JSON value

PLAIN = [
    {"benchmark": "b", "problem_id": f"p{i % 2}", "prompt": "1+1?", "answer": "2", "response": "\\boxed{2}"}
    for i in range(4)
]
DUMP = [
    {
        "input": f"q{i // 2}",
        "output": "o",
        "gts": "2",
        "score": float(i % 2),
        "step": 1,
        "acc": float(i % 2),
        "data_source": "d",
    }
    | {"uid": f"u{i // 2}_{i % 2}_0"}
    for i in range(4)
]
LM_EVAL = [
    {"doc_id": i, "doc": {"q": "1+1?"}, "target": "2", "arguments": {"gen_args_0": {"arg_0": "Q: 1+1?", "arg_1": {}}}}
    | {"resps": [["2", "3"]], "filtered_resps": ["2"], "filter": "none", "doc_hash": "0" * 16}
    for i in range(2)
]
TRAIN = [{"problem": f"p{i}", "answer": "1", "solution": "so 1 #### 1"} for i in range(2)]
VERL = [
    {"data_source": "d", "prompt": [{"role": "user", "content": f"1+{i}?"}], "ability": "math"}
    | {"reward_model": {"style": "rule", "ground_truth": "2"}, "extra_info": {"index": i, "problem_id": f"p{i}"}}
    for i in range(2)
]
GPQA = [
    {
        "Question": "q?",
        "Correct Answer": "a",
        "Incorrect Answer 1": "b",
        "Incorrect Answer 2": "c",
        "Incorrect Answer 3": "d",
    }
]
IFEVAL = [{"key": 1, "prompt": "p", "instruction_id_list": ["a:b"], "kwargs": [{"n": 1}]}]
SYNLOGIC = [{"data_source": "s/x", "prompt": "p", "extra_info": {"game_data_str": "{}"}}]


PROBLEMS = [
    {"benchmark": "b", "problem_id": f"p{i}", "prompt": "1+1?", "kind": "math", "answers": ["2"], "extra": {}}
    for i in range(2)
]
SAMPLE = ["--backend", "openai", "--num-samples", "3", "--max-tokens", "4"]


def benchmark(name: str, rows: list[Any]) -> tuple[Files, list[str]]:
    local = ["--only", name, "--local", f"{name}=F/{name}.json", "--any-size"]
    return {f"{name}.json": rows}, ["data", "benchmarks", "--out", "F/out", *local]


COMMANDS: dict[str, tuple[Files, list[str]]] = {
    "grade plain": ({"a.jsonl": PLAIN}, ["eval", "grade", "--run", "F/run", "--input", "F/a.jsonl", "--workers", "1"]),
    "grade verl": ({"1.jsonl": DUMP}, ["eval", "grade", "--run", "F/run", "--input", "F/1.jsonl", "--workers", "1"]),
    "grade lm-eval": (
        {"a.jsonl": LM_EVAL},
        ["eval", "grade", "--run", "F/run", "--input", "F/a.jsonl", "--workers", "1"],
    ),
    "benchmarks gsm8k": benchmark("gsm8k", TRAIN),
    "benchmarks verl": benchmark("math500", VERL),
    "benchmarks gpqa": benchmark("gpqa", GPQA),
    "benchmarks ifeval": benchmark("ifeval", IFEVAL),
    "benchmarks synlogic": benchmark("synlogic", SYNLOGIC),
    "problems": ({"a.jsonl": VERL}, ["data", "problems", "--data", "F/a.jsonl", "--name", "n", "--out", "F/out.jsonl"]),
    "nll prompts": (
        {"a.jsonl": VERL},
        ["eval", "nll", "prompts", "--data", "F/a.jsonl", "--num", "1", "--out", "F/out.jsonl"],
    ),
    "tail-miss dumps": ({"d/1.jsonl": DUMP, "d/2.jsonl": DUMP}, ["tail-miss", "--run", "F/d"]),
    "tail-miss rows": (
        {"a.jsonl": [{"problem_id": "p", "correct": True}, {"problem_id": "p", "correct": 0}]},
        ["tail-miss", "--before", "F/a.jsonl", "--after", "F/a.jsonl", "--group-size", "2"],
    ),
    "audit": ({"d/1.jsonl": DUMP}, ["audit", "F/d", "--focal-gamma", "0.5"]),
    "val-passk": ({"d/1.jsonl": DUMP}, ["val-passk", "F/d"]),
    "sample": (
        {"p.jsonl": PROBLEMS},
        ["eval", "sample", "--run", "F/run", "--model", "m", "--problems", "F/p.jsonl", *SAMPLE],
    ),
}
#: commands that read runs, made once from `PLAIN` and copied for each input
RUN_COMMANDS: dict[str, list[str]] = {
    "grade again": ["eval", "grade", "--run", "F/run", "--workers", "1"],
    "report": ["eval", "report", "--runs", "A=F/run", "--out", "F/out"],
    "compare": [
        "eval",
        "compare",
        "--base",
        "A=F/run",
        "--focal",
        "B=F/run",
        "--m",
        "2",
        "--ks",
        "1",
        "--iterations",
        "100",
        "--out",
        "F/out",
    ],
    "sample more": ["eval", "sample", "--run", "F/run", "--model", "m", "--problems", "F/run/problems.jsonl", *SAMPLE],
    "sample plan": [
        *["eval", "sample", "--run", "F/run", "--model", "m", "--problems", "F/run/problems.jsonl", *SAMPLE],
        *["--stop-after-correct", "2", "--dry-run"],
    ],
    "merge": ["eval", "merge", "--sources", "F/run", "--run", "F/merged"],
}

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
SPECIAL = st.sampled_from(
    [
        "",
        " ",
        "\x00",
        "$\\frac$",
        "a|b\n<script>",
        "\ud800",
        -1,
        0,
        2**63,
        10**400,
        1e308,
        [],
        {},
        [[]],
        "NaN",
        "1e5",
        "__class__",
    ]
)
JSON = st.recursive(
    SCALARS | SPECIAL,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def places(value: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value inside a JSON value."""
    yield here
    if isinstance(value, (dict, list)):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, (*here, key))


def replaced(value: Any, place: tuple[Any, ...], new: Any) -> Any:
    if not place:
        return new
    value = copy.deepcopy(value)
    inner = value
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = new
    return value


@st.composite
def inputs(draw: Any, files: Files) -> Files:
    """The files with one to three values replaced by any JSON value."""
    files = copy.deepcopy(files)
    for _ in range(draw(st.integers(1, 3))):
        name = draw(st.sampled_from(sorted(files)))
        place = draw(st.sampled_from(list(places(files[name]))))
        files[name] = replaced(files[name], place, draw(JSON))
    return files


def write(folder: Path, files: Files) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = content if isinstance(content, list) and path.suffix != ".json" else [content]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


def run(arguments: list[str], folder: Path, told_in_output: bool = False) -> None:
    """Run a command in this process: anything but an exit code is raised, and fails the test.

    `told_in_output`: what is wrong may stand in the output instead.
    """
    output, errors = io.StringIO(), io.StringIO()
    words = [word.replace("F/", f"{folder}/") for word in arguments]
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        try:
            code = main(words)
        except SystemExit as end:
            code = end.code
    told = [line for line in errors.getvalue().replace("\r", "\n").split("\n") if line.startswith("verl-fgrpo")]
    assert code in (0, 1, 2) and "Traceback" not in errors.getvalue()
    assert len(told) == (code != 0) or (told_in_output and code == 1 and not told and output.getvalue()), told


@pytest.fixture(autouse=True)
def no_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Grading itself has its own tests; here it ends when the input has been read."""

    def stop(store: Any, *args: Any, **kwargs: Any) -> None:
        for _ in store.read():
            pass
        raise RuntimeError("input read")

    monkeypatch.setattr("verl_fgrpo.evaluation.grade_command.grade_store", stop)
    monkeypatch.setattr("verl_fgrpo.evaluation.sample_command._backend", lambda options: Echo())


class Echo:
    """A backend that says the same to every prompt, with the settings of imported samples."""

    def identity(self) -> dict[str, Any]:
        return {"backend": "echo"}

    def generate(self, requests: Any, decoding: Any) -> Iterator[Generated]:
        for request in requests:
            yield Generated(request.key, request.seed, "\\boxed{2}", 1, "stop")


def check(
    files: Files, arguments: list[str], examples: int, folder: Path, ready: Callable[[Path], None] | None = None
) -> None:
    @settings(
        max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), database=None, derandomize=True
    )
    @given(inputs(files))
    def property_(changed: Files) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        if ready is not None:
            ready(folder)
        write(folder, changed)
        run(arguments, folder)

    property_()


EXAMPLES = [pytest.param(20, id="few"), pytest.param(560, id="many", marks=pytest.mark.full)]


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("examples", EXAMPLES)
def test_files(name: str, examples: int, tmp_path: Path) -> None:
    files, arguments = COMMANDS[name]
    check(files, arguments, examples, tmp_path / "x")


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A graded run of four samples."""
    folder = tmp_path_factory.mktemp("graded")
    write(folder, {"a.jsonl": PLAIN})
    main(["eval", "grade", "--run", str(folder / "run"), "--input", str(folder / "a.jsonl"), "--workers", "1"])
    return folder / "run"


def read(run_folder: Path) -> Files:
    """The files of a run that are JSON, as they are."""
    files: Files = {}
    for path in sorted(run_folder.rglob("*")):
        name = f"run/{path.relative_to(run_folder)}"
        if path.name.endswith(".jsonl.gz"):
            files[name] = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
        elif path.suffix == ".jsonl":
            files[name] = [json.loads(line) for line in path.read_text().splitlines()]
        elif path.name == "manifest.json":
            files[name] = json.loads(path.read_text())
    return files


@pytest.mark.parametrize("name", RUN_COMMANDS)
@pytest.mark.parametrize("examples", [pytest.param(10, id="few"), pytest.param(560, id="many", marks=pytest.mark.full)])
def test_runs(name: str, examples: int, graded: Path, tmp_path: Path) -> None:
    check(
        read(graded),
        RUN_COMMANDS[name],
        examples,
        tmp_path / "x",
        lambda folder: shutil.copytree(graded, folder / "run"),
    )


@pytest.mark.parametrize("examples", [pytest.param(5, id="few"), pytest.param(200, id="many", marks=pytest.mark.full)])
def test_training_files(examples: int, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    arguments = [
        "data",
        "train",
        "--out",
        "F/out",
        "--model",
        str(model),
        "--preset",
        "qwen2.5",
        "--source",
        "F/a.jsonl",
    ]
    check({"a.jsonl": TRAIN}, arguments, examples, tmp_path / "x")


KEYS = st.sampled_from(
    [f"algorithm.{key}" for key in ("focal_gamma", "f_grpo_gamma", "fgrpo_gamma", "focal_success_threshold")]
    + [f"algorithm.{key}" for key in ("f_grpo_reward_correct", "f_grpo_reward_wrong", "adv_estimator", "fade_alpha")]
    + [f"algorithm.{key}" for key in ("focal_success_threshold_by_source", "focal_other", "norm_adv_by_std_in_grpo")]
    + [f"algorithm.{key}" for key in ("gamma", "use_kl_in_reward", "rollout_correction")]
    + [f"actor_rollout_ref.{key}" for key in ("actor", "actor.policy_loss", "actor.policy_loss.loss_mode", "rollout.n")]
    + ["trainer", "trainer.v1", "trainer.use_v1", "gamma"]
)
VALUES = JSON.map(lambda value: json.dumps(value)) | st.text(max_size=12) | st.sampled_from(["f_grpo", "grpo", "0.5"])


@pytest.mark.full
def test_explain(tmp_path: Path) -> None:
    """Any value for keys of the algorithm and what it depends on, as words on the command line."""
    pytest.importorskip("verl")

    @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck), database=None, derandomize=True)
    @given(st.dictionaries(KEYS, VALUES, max_size=3), st.sampled_from([[], ["+focal=grpo"], ["+focal=cispo"]]))
    def property_(changed: dict[str, str], preset: list[str]) -> None:
        run(["explain", *preset, *(f"++{key}={value}" for key, value in changed.items())], tmp_path, True)

    property_()
