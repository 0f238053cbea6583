"""The tests of this folder share a venue's true book (truth.py)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
