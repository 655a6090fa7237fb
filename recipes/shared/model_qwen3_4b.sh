# Qwen3-4B-Base: what depends on the model alone. Sourced by the recipes.
MODEL_NAME=qwen3_4b
MODEL_PATH=${MODEL_PATH:-Qwen/Qwen3-4B-Base}           # paper Table 5
MAX_RESPONSE_LENGTH=${MAX_RESPONSE_LENGTH:-4096}       # paper Table 5
PROMPT_PRESET=qwen3                                    # paper Table 9: of scripts/prepare_data.py
CHAT_TEMPLATE=(+data.apply_chat_template_kwargs.enable_thinking=True)   # paper L.1: thinking mode on
MODEL_BILLIONS=4.02                                    # parameters, from the model card; for the estimates only
