"""The table of settings in docs/configuration.md, which is generated from the code."""

import pathlib
import re
import sys

TABLE = pathlib.Path(__file__).resolve().parent.parent / "docs/configuration.md"


def rows():
    """Each setting: name, type, default, when a change takes effect, purpose."""
    table = TABLE.read_text().split("<!-- generated -->")[1].split("<!-- end of the generated part -->")[0]
    found = re.findall(r"^\| `([^`]+)` \| (.+?) \| (.+?) \| (.+?) \| (.+) \|$", table, re.M)
    if len(found) < 20:
        sys.exit(f"{TABLE.name} has only {len(found)} settings; has the table another form now?")
    return found
