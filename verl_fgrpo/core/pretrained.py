"""Models and tokenizers of Hugging Face folders, which may be damaged or hostile."""

from pathlib import Path
from typing import Any


def load_pretrained(kind: str, folder: Path | str, trust_remote_code: bool = False, **how: Any) -> Any:
    """`transformers.KIND.from_pretrained(folder, ...)`; without trust it runs no code of the folder, and asks nobody.

    Raises:
        ValueError: it cannot be loaded, for whatever reason: libraries raise exceptions of their own on damaged files.
    """
    import transformers

    try:
        return getattr(transformers, kind).from_pretrained(folder, trust_remote_code=trust_remote_code, **how)
    except Exception as error:
        told = " ".join(str(error).split())[:600]
        raise ValueError(f"{folder} cannot be loaded ({type(error).__name__}: {told}); restore it") from error


def render_chat(tokenizer: Any, messages: list[Any], **how: Any) -> Any:
    """`apply_chat_template` with a generation prompt.

    Raises:
        ValueError: the template, a program of whoever made the model, refuses the messages or fails.
    """
    try:
        return tokenizer.apply_chat_template(messages, add_generation_prompt=True, **how)
    except Exception as error:
        told = f"{type(error).__name__}: {error}"
        raise ValueError(f"the chat template of {tokenizer.name_or_path} fails ({told}); mend it") from error
