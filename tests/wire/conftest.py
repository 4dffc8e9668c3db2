"""Lets the tests here import each other: planted bugs are hunted with the tests of the guard."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
