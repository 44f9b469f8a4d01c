"""Exported networks: what a built repository says of itself, whether it fits this machine, and how it is run."""
