"""One server process of several, whose engine goes by words: `python replica.py FILE PORT`."""

from __future__ import annotations

import sys

from serving_fakes import FakeEngine

from serving.run import serve

if __name__ == "__main__":
    serve(sys.argv[1], port=int(sys.argv[2]), make_engine=FakeEngine)
