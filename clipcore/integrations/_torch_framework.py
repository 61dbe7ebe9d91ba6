"""torch itself, of a version that the integration is tested with, and what clipcore has for it."""

import importlib
from typing import Any

from clipcore.integrations._require import require

__all__ = ["FLOOR", "only", "torch"]

FLOOR = "2.8"

torch: Any = require("torch", FLOOR)

# Now, since torch.compile does not follow an import.
only: Any = importlib.import_module("clipcore._torch").only
