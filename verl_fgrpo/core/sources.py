"""Which data source a dumped prompt is of: verl's dumps hold prompt and gold answer, but no `data_source`."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from verl_fgrpo.core.dumps import run_setting
from verl_fgrpo.core.rows import shown


class PromptSources:
    """Finds the row of a data file that a dumped prompt was made of.

    It is the row that has the gold answer and whose messages all occur in the prompt, apart from white space, which
    decoding a tokenised prompt can change; the longest of them if several do.
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]]) -> None:
        self._names: defaultdict[str, defaultdict[tuple[str, ...], list[str]]] = defaultdict(lambda: defaultdict(list))
        for number, row in enumerate(rows):
            try:
                gold = json.dumps(row["reward_model"]["ground_truth"], sort_keys=True)
                texts = tuple(_squeezed(str(message["content"])) for message in row["prompt"])
            except (TypeError, LookupError) as error:
                raise ValueError(
                    f"the data file's row {number} is {shown(dict(row))}, but it must be as verl has it: prompt (turns "
                    "with content), reward_model (with ground_truth), data_source; name the file that the run used"
                ) from error
            self._names[gold][texts].append(str(row["data_source"]))

    @classmethod
    def of_files(cls, files: Sequence[Path]) -> "PromptSources":
        """Read parquet files in verl's schema.

        Raises:
            FileNotFoundError: one does not exist.
        """
        import pyarrow.parquet as pq

        if absent := [str(file) for file in files if not file.is_file()]:
            raise FileNotFoundError(f"the data file {absent[0]} does not exist; name the one that the run used")
        columns = ["prompt", "reward_model", "data_source"]
        rows: list[dict[str, Any]] = []
        for file in files:
            try:
                rows += pq.read_table(file, columns=columns).to_pylist()
            except ValueError as error:  # pyarrow's own, for what is no Parquet or has other columns
                told = " ".join(str(error).split())
                raise ValueError(f"{file} is no Parquet file with {', '.join(columns)} ({told})") from error
        return cls(rows)

    def of(self, prompt: str, gts: Any) -> list[str]:
        """Data sources of the rows with this prompt and gold answer: one, or several if it is in several.

        Raises:
            ValueError: none; the run used another file.
        """
        text = _squeezed(prompt)
        by_texts: Mapping[tuple[str, ...], list[str]] = self._names.get(json.dumps(gts, sort_keys=True), {})
        found = [texts for texts in by_texts if all(part in text for part in texts)]
        if not found:
            raise ValueError(
                f"no row of the data file has the gold answer {gts!r} and the prompt {prompt[-200:]!r}; name the file "
                "that the run used"
            )
        return by_texts[max(found, key=lambda texts: sum(map(len, texts)))]


def run_files(run: Path, key: str) -> list[Path]:
    """Files that a run's configuration names, e.g. under data.val_files; none if it is not known."""
    value = run_setting(run, key) or []
    files = [value] if isinstance(value, str) else value
    if not isinstance(files, Sequence) or not all(isinstance(file, str) for file in files):
        raise ValueError(f"{key} of {run} is {value!r}, but it must name files; name them on the command line")
    return [Path(file).expanduser() for file in files]


def _squeezed(text: str) -> str:
    return "".join(text.split())
