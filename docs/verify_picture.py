"""Draw the table that `clipcore verify` prints: python docs/verify_picture.py REPORT.json PICTURE.svg."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

from rich.console import Console

from clipcore.verify.report import read
from clipcore.verify.table import table

console = Console(record=True, width=150, file=io.StringIO())
console.print("$ clipcore verify", style="bold")
console.print(table(read(sys.argv[1]).reports))
console.print("✓ holds   ✗ broken by so many cases   ≠ differs by definition   – not tried", style="dim")
drawn = console.export_svg(title="clipcore verify")
# fonts would be fetched from elsewhere: any monospaced one that is there will do
Path(sys.argv[2]).write_text(re.sub(r"@font-face \{.*?\}", "", drawn, flags=re.DOTALL), encoding="utf-8")
