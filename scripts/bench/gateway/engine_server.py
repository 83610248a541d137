"""Our server with an engine that answers at once.

    python -m scripts.bench.gateway.engine_server CONFIG

The engine is not what is measured here: `make bench-decision` does that. This one holds no model,
so that memory is the gateway's alone.
"""

from __future__ import annotations

import sys

from scripts.bench.gateway.first_route import FirstRoute
from serving.run import serve


def main() -> None:
    if "torch" in sys.modules:
        raise SystemExit("the server imported torch: its memory would not be the gateway's alone")
    serve(sys.argv[1], make_engine=FirstRoute)


if __name__ == "__main__":
    main()
