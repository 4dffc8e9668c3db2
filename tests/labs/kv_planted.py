"""`engine`, but with a planted bug, or with memory that goes back at once: some labs' servers.

kv_planted.py kv serve … [--plant BUG] [--gives-back]
"""

from __future__ import annotations

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from kv_bugs import SERVER_BUGS, give_back

from engine_cmd.main import main

if "--gives-back" in sys.argv:
    sys.argv.remove("--gives-back")
    give_back()
if "--plant" in sys.argv:
    at = sys.argv.index("--plant")
    for patch in SERVER_BUGS[sys.argv[at + 1]]:
        setattr(patch.owner, patch.name, patch.make(patch.owner.__dict__[patch.name]))
    del sys.argv[at : at + 2]
sys.exit(main())
