# Qwen2.5-7B: what depends on the model alone. Sourced by the recipes.
MODEL_NAME=qwen7b
MODEL_PATH=${MODEL_PATH:-Qwen/Qwen2.5-7B}              # paper Table 5
MAX_RESPONSE_LENGTH=${MAX_RESPONSE_LENGTH:-8192}       # paper Table 5
PROMPT_PRESET=qwen2.5                                  # paper Table 9: of scripts/prepare_data.py
CHAT_TEMPLATE=()                                       # paper Table 9: nothing besides the system prompt
MODEL_BILLIONS=7.62                                    # parameters, from the model card; for the estimates only
