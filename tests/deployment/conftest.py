"""`messengers`, which starts validators and relayer, is imported by the tests that need them."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
