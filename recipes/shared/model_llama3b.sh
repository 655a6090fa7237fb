# Llama-3.2-3B-Instruct: what depends on the model alone. Sourced by the recipes.
MODEL_NAME=llama3b
MODEL_PATH=${MODEL_PATH:-meta-llama/Llama-3.2-3B-Instruct}   # paper Table 5 (gated: accept Meta's terms on the hub)
MAX_RESPONSE_LENGTH=${MAX_RESPONSE_LENGTH:-8192}       # paper Table 5
PROMPT_PRESET=llama3                                   # paper Table 9: of scripts/prepare_data.py
# paper Table 9: a date header, written by the chat template
# ours: which date; without this the template writes the date of the day, and a prompt would change during a run
CHAT_TEMPLATE=("+data.apply_chat_template_kwargs.date_string='26 Jul 2024'")
MODEL_BILLIONS=3.21                                    # parameters, from the model card; for the estimates only
