"""Fuzzing: the same targets under Hypothesis in the test suite and, for longer, under atheris (`make fuzz`)."""
