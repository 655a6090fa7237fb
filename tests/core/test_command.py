"""How commands end: exit codes, one line for a user's mistake, and no secret in anything that is printed."""

import os
import re
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_fgrpo.cli import COMMANDS, main
from verl_fgrpo.core.command import (
    COUNT,
    INTERRUPTED,
    PROCESSES,
    SEED,
    command_parser,
    redact,
    run_command,
    shown_text,
    torch_device,
)


def test_secrets_of_the_environment_are_masked(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "abcd-efgh-1234\n")
    assert redact("the server said: abcd-efgh-1234 is unknown") == "the server said: *** is unknown"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Illegal header value b'Bearer s3cr3t-token'", "Illegal header value b'Bearer ***'"),
        ("http://user:pa55word@host:8000/v1 refused", "http://***@host:8000/v1 refused"),
        ("api_key=k3yk3yk3y&n=1", "api_key=***&n=1"),
        ('{"api-key": "k3yk3yk3y"}', '{"api-key": "***"}'),
        ("sk-proj-0123456789abcdef and hf_0123456789abcdef", "*** and ***"),
        ("Authorization: Basic dXNlcjpwYXNz", "Authorization: Basic ***"),
        ("Bearer%20abc.def client_secret=x ghp_0123456789abcdef", "Bearer%20*** client_secret=*** ***"),
        ("no secret: 3 tokens a word, http://host/v1?n=2", "no secret: 3 tokens a word, http://host/v1?n=2"),
    ],
)
def test_secrets_are_masked_wherever_they_stand(text, masked):
    assert redact(text) == masked


@given(secret=st.text("abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789-_.", min_size=8, max_size=60))
def test_no_bearer_token_survives(secret):
    # letters of the frame are left out of what is looked for
    assert secret not in redact(f"Authorization: Bearer {secret}")
    assert secret not in redact(f"https://me:{secret}@example.org/v1")


@pytest.mark.parametrize(
    "error", [ValueError("v\nv"), OSError("o"), RuntimeError("r"), MemoryError(), KeyboardInterrupt()], ids=repr
)
def test_errors_are_one_line_and_a_code(error, capsys):
    def fails(_):
        raise error

    before = signal.getsignal(signal.SIGINT)  # ignored after a first Ctrl-C
    try:
        code = run_command("verl-fgrpo x", fails, [])
    finally:
        signal.signal(signal.SIGINT, before)
    assert code == (INTERRUPTED if isinstance(error, KeyboardInterrupt) else 1)
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("verl-fgrpo x: ") and printed.err.count("\n") == 1


def test_a_fault_of_ours_keeps_its_traceback():
    def fails(_):
        raise TypeError("ours")

    with pytest.raises(TypeError):
        run_command("verl-fgrpo x", fails, [])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--rate", "nan"], "--rate: nan must be a finite number"),
        (["--rate", "1e999"], "--rate: 1e999 must be a finite number"),
        (["--number", "0"], "--number: 0 must be a whole number from 1"),
        (["--number", str(2**63)], "below 2**63"),
        (["--number", "1.5"], "--number: invalid int value: '1.5'"),
        (["--jobs", "1025"], "--jobs: 1025 must be a whole number from 1, below 1025"),
        (["--seed", "-1"], "--seed: -1 must be a whole number from 0"),
        (["--data", " "], "--data: ' ' is no path; is a variable unset?"),
        (["--data", "a\0b"], "is no path"),
        (["--device", "gpu"], "'gpu' is no device of this machine"),
        (["--device", "meta"], "'meta' is no device of this machine"),
        (["--device", "cuda:9999"], "'cuda:9999' is no device of this machine"),
        (["--nonsense\n\n1"], "unrecognized arguments"),
        (["--title", "\udcff"], "is no text in the encoding of this terminal"),
        (["--data", "FILE", "--csv", "FILE"], "would replace what is read"),
        (["--data", "FILE", "--csv", "LINK"], "would replace what is read"),
        (["--data", "OTHER", "FILE", "--csv", "FILE"], "would replace what is read"),
        (["--csv", "FILE"], "/file is a file but no earlier output (those end in .csv)"),
        (["--run", "RUN", "--csv", "RUN/samples/x.csv"], "would replace what is read"),
        (["--run", "lr=1e-6=RUN", "--csv", "RUN/x/../verdicts/part-0"], "would replace what is read"),
        (["--run", "RUN", "--csv", "RUN/problems.jsonl"], "would replace what is read"),
    ],
)
def test_options_that_cannot_be_meant_are_told_in_one_line(words, told, tmp_path, capsys):
    (tmp_path / "file").write_text("data")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "run" / "samples").mkdir(parents=True)
    (tmp_path / "run" / "samples" / "manifest.json").write_text("{}")
    parser = command_parser("x", None)
    for name, kind in {"rate": float, "number": COUNT, "seed": SEED, "jobs": PROCESSES}.items():
        parser.add_argument(f"--{name}", type=kind)
    for name, kind in {"device": torch_device, "csv": Path, "title": shown_text}.items():
        parser.add_argument(f"--{name}", type=kind)
    parser.add_argument("--data", type=Path, nargs="+")
    parser.add_argument("--run")
    with pytest.raises(SystemExit, match="2"):
        parser.parse_args([re.sub("[A-Z]{3,}", lambda name: f"{tmp_path}/{name[0].lower()}", word) for word in words])
    printed = capsys.readouterr().err
    assert told in printed and printed.startswith("verl-fgrpo x: error: ") and printed.count("\n") == 1
    assert (tmp_path / "file").read_text() == "data"


@pytest.mark.parametrize(
    "words",
    ["bench_cpu_overhead --steps 2", "bench_cpu_overhead --dir FILE", "bench_simulation --plain-steps 0"]
    + ["bench_evaluation grading --benchmark math500", "bench_evaluation grading --benchmark math500=nowhere"],
)
def test_benchmarks_tell_mistakes_in_one_line_too(words, tmp_path, capsys, monkeypatch):
    (tmp_path / "file").touch()
    name, *arguments = words.replace("FILE", str(tmp_path / "file")).split()
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(Path(__file__).parents[2] / "scripts" / f"{name}.py"), run_name="__main__")
    told = capsys.readouterr().err
    assert end.value.code in (1, 2) and told.startswith(f"{name}.py: ") and told.count("\n") == 1


def test_usage_names_every_command(capsys):
    assert main(["--help"]) == 0
    told = capsys.readouterr().out
    assert all(f"verl-fgrpo {name}" in told for name in COMMANDS)
    assert main(["nonsense"]) == 2 and "there is no command 'nonsense'" in capsys.readouterr().err


def test_a_reader_that_leaves_is_no_error():
    """`verl-fgrpo ... | head -1`: no traceback, exit code 0."""
    code = "import sys; from verl_fgrpo.core.command import run_command\n"
    code += "def talk(_):\n    for _ in range(100000): print('a line')\n"
    code += "sys.exit(run_command('x', talk, []))"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=-1, stderr=-1)
    process.stdout.readline()
    process.stdout.close()
    assert process.wait() == 0 and process.stderr.read() == b""


def test_a_name_that_the_terminal_cannot_show_is_no_error():
    code = "import sys; from verl_fgrpo.core.command import run_command\n"
    code += "sys.exit(run_command('x', lambda _: print('\\u6570\\udcff'), []))"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    for encoding, shown in (("ascii", b"\\u6570\\udcff\n"), ("utf-8", "\u6570\\udcff\n".encode())):
        asked = environment | {"PYTHONIOENCODING": encoding}
        done = subprocess.run([sys.executable, "-c", code], env=asked, capture_output=True)
        assert (done.returncode, done.stdout, done.stderr) == (0, shown, b"")


INTERRUPTED_TEXT = """
import sys
from verl_fgrpo.core.command import run_command

sys.exit(run_command("x", lambda _: exec("raise KeyboardInterrupt"), []))
"""


def test_ctrl_c_within_an_evaluated_text_is_an_exit_code_too(tmp_path):
    """Python itself would end with the signal: it keeps in mind that such a text was interrupted."""
    (tmp_path / "interrupted.py").write_text(INTERRUPTED_TEXT)
    done = subprocess.run([sys.executable, "-m", "interrupted"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == INTERRUPTED and done.stderr == "x: interrupted; rerun to resume\n"
