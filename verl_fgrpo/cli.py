"""The command `verl-fgrpo`."""
