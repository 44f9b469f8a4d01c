"""The clip that ships with the package: 76 frames of a procedural courtyard, 640x360 (training/sample_clip.py)."""

from pathlib import Path

COURTYARD = Path(__file__).with_name("courtyard.mp4")
