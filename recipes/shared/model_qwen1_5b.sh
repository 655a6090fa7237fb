# Qwen2.5-1.5B: what depends on the model alone. Sourced by run_fgrpo_qwen1_5b.sh.
MODEL_NAME=qwen1_5b
MODEL_PATH=${MODEL_PATH:-Qwen/Qwen2.5-1.5B}            # ours: the paper has no model of this size
MAX_RESPONSE_LENGTH=${MAX_RESPONSE_LENGTH:-2048}       # ours: paper 8192; MATH solutions of a small model are shorter
PROMPT_PRESET=qwen2.5                                  # paper Table 9
CHAT_TEMPLATE=()                                       # paper Table 9: nothing besides the system prompt
MODEL_BILLIONS=1.54                                    # parameters, from the model card; for the estimates only
