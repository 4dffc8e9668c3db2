"""Lets the tests here import what they share: `mutation.py`, `seeds.py`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
