"""Hydra config groups that the plugin adds to verl's search path."""
