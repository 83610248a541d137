# Two commands: `make serve` and `make test`. Each sets up what it needs; later runs reuse it.
PYTHON ?= python3
VENV ?= .venv
PORT ?= 8080
ENGINE ?=
CONFIG ?= configs/serve.yaml
RECIPE ?= nano-lora
DATA ?= data/nano
AGAINST ?=
CHECKPOINT ?= checkpoints/nano
EXPERIMENTS ?= nano
BENCH ?=

export PYTHON
export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false
# Modules compiled once: without, every process of a run would compile them anew.
unexport PYTHONDONTWRITEBYTECODE

INPUTS := pyproject.toml configs/constraints.txt scripts/install.sh scripts/base_model.py
BIN := $(VENV)/bin

.PHONY: serve test check data train eval experiments export bench-data bench-train bench-decision bench-shortlist bench-decision-time bench-gateway bench-soak bench-sessions clean help

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

serve: $(VENV)/.$(if $(filter vllm,$(ENGINE)),vllm,serve) ## Install what is needed and serve on 127.0.0.1:$(PORT): ENGINE=vllm CHECKPOINT=folder
	$(BIN)/pointsman serve --config $(CONFIG) --port $(PORT) $(addprefix --engine ,$(ENGINE)) \
	    $(if $(call given,CHECKPOINT),--checkpoint $(CHECKPOINT))

test: $(VENV)/.dev check ## Install what is needed and run lint, types and tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder $(PYTEST)

check: $(VENV)/.dev ## Lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# RECIPE names a recipe of data here and one of training there; unless given, each has its own.
given = $(filter command,$(origin $(1)))

data: $(VENV)/.dev ## Make routing data: RECIPE=nano, standard or large; POINTSMAN_CORPORA=folder
	$(BIN)/pointsman data make $(if $(call given,RECIPE),$(RECIPE),nano) \
	    $(if $(call given,DATA),--output $(DATA)) $(addprefix --against ,$(AGAINST))

train: $(VENV)/.dev ## Train and calibrate: RECIPE=name DATA=folder TWIN=1 for its tiny twin
	$(BIN)/pointsman train $(RECIPE) --data $(DATA) $(if $(TWIN),--with tiny) $(TRAIN)

experiments: $(VENV)/.dev ## Train and measure rows, write their table: EXPERIMENTS=name FILES="…"
	$(BIN)/pointsman experiments $(EXPERIMENTS) $(FILES) --into README.md

export: $(VENV)/.dev ## A whole model from a checkpoint, checked: CHECKPOINT=folder
	$(BIN)/pointsman export $(CHECKPOINT) $(addprefix --output ,$(OUTPUT))

eval: $(VENV)/.dev ## Measure a checkpoint: CHECKPOINT=folder FILES="a.jsonl b.jsonl"
	$(BIN)/pointsman eval --checkpoint $(CHECKPOINT) $(FILES)

bench-data: $(VENV)/.dev ## Decisions made a minute and memory, at 10 k, 100 k and 1 M
	$(BIN)/python -m scripts.bench.data

bench-train: $(VENV)/.dev ## Whole conversations against one decision a row, in training
	$(BIN)/python -m scripts.bench.train $(if $(call given,DATA),--data $(DATA))

bench-decision: $(VENV)/.dev ## One forward pass against generated JSON, by vLLM
	$(BIN)/python -m scripts.bench.decision --checkpoint $(CHECKPOINT)

bench-shortlist: $(VENV)/.dev ## Decisions among 8 to 256 routes: FILES=one file of records
	$(BIN)/python -m scripts.bench.shortlist --checkpoint $(CHECKPOINT) $(FILES)

bench-decision-time: $(VENV)/.dev ## Decision time, caches warm and cold
	$(BIN)/python -m scripts.bench.decision_time --checkpoint $(CHECKPOINT)

bench-soak: $(VENV)/.dev ## Memory of the embedded engine over 20,000 decisions
	$(BIN)/python -m scripts.bench.soak --checkpoint $(CHECKPOINT) $(BENCH)

bench-sessions: $(VENV)/.dev ## What keeping its model saves an agent of 30 tool calls, by a simulated cache
	$(BIN)/python -m scripts.bench.sessions $(BENCH)

bench-gateway: $(VENV)/.dev ## The gateway's speed beside LiteLLM's and Portkey's: BENCH="--soak 200000"
	$(BIN)/python -m scripts.bench.gateway --install $(BENCH)

# Everything that serves is in `dev` too: either stamp will do for it.
$(VENV)/.serve: $(INPUTS)
	@if [ -e $(VENV)/.dev ]; then extra=dev; else extra=serve; fi; \
	    echo "Setting up $(VENV) ($$extra)"; ./scripts/install.sh $(VENV) $$extra
	@touch $@

$(VENV)/.dev: $(INPUTS)
	@echo "Setting up $(VENV) (dev)"; ./scripts/install.sh $(VENV) dev
	@touch $@ $(VENV)/.serve

$(VENV)/.vllm: $(VENV)/.serve
	./scripts/install.sh $(VENV) vllm
	@touch $@

clean: ## Remove the environment
	rm -rf $(VENV)
