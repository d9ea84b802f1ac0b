"""``python -m procreactor.hosts.twisted PROGRAM [ARG ...]``; see program.py."""

from __future__ import annotations

import sys

from procreactor.hosts.twisted.program import main

sys.exit(main(sys.argv[1:]))
