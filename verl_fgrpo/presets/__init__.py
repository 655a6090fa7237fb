"""Hydra config groups: `+focal=grpo` and the like, `+platform=cpu`; verl finds them once the plugin is loaded.

Not here: code. A preset holds values with their sources; what reads them is methods/settings.py.
"""
