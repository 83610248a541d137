"""`python recording_server.py CONFIG`: a server whose engine is fake, for tests that kill it."""

from __future__ import annotations

import sys

from serving_fakes import KEY, KEY_ENV, FakeEngine

from serving.run import serve

if __name__ == "__main__":
    serve(sys.argv[1], make_engine=FakeEngine, environ={KEY_ENV: KEY})
