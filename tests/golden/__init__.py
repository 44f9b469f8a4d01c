"""Parity with the reference implementations: `python -m tests.golden DIR` runs our code on stored arrays."""
