SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo check test test-long bench lab-model smoke smoke-offline table-hcb table-probe table-dola table-dola-mc \
	table-layers figure-layers table-judges table-prune figure-activations clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
HCL := $(BIN)/hcl
READY := $(VENV)/.ready
# Offline by design: nothing below asks a network for data or weights, except `smoke` and `table-*` with a Hub model.
OFFLINE := HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1
comma := ,
WORKERS ?= $(shell nproc 2>/dev/null || echo 2)

help:            ## this list
	@awk 'BEGIN {FS = ":.*##"} /^[a-z-]+:.*##/ {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "hcl needs Python 3.11 or newer; name one with make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[offline,hub,figures,llm,confidence,metrics,evaluate,mitigate,dev]'
	touch $(READY)

setup: $(READY)  ## the environment in .venv, from pinned versions

demo: $(READY)   ## sample | score | hcb on the lab model and questions, offline; says where table and figure are
	@mkdir -p out
	@export $(OFFLINE); \
	  $(HCL) sample | $(HCL) score | $(HCL) hcb --figure out/hcb.svg --table out/hcb.md > out/hcb.path; \
	  echo; echo "layer table (Parquet): $$(cat out/hcb.path)"; \
	  echo "table (Markdown):      $$PWD/out/hcb.md"; echo "figure (SVG):          $$PWD/out/hcb.svg"

check: $(READY)  ## ruff and strict mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: check      ## check, then the test suite; prints the slowest 20
	$(OFFLINE) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup --durations 20

test-long: check ## everything, also what takes minutes: retraining the lab, random kills, the wheel, every cut of a file
	$(OFFLINE) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup --durations 20 -m ""

bench: $(READY)  ## the benchmark scripts, one after another; they print ratios
	@for script in benchmarks/[a-z]*.py; do echo "== $$script"; $(OFFLINE) $(BIN)/python $$script; done

lab-model: $(READY) ## train both lab models again into out/models (CPU, minutes, seeded)
	$(BIN)/python -m hcl_cli.lab --out out/models

# The real Llama 3.2 1B by default: gated, so it wants a Hub token whose owner has accepted its licence.
# MODEL, DATASET, LIMIT and SAMPLES can be given on the command line.
SMOKE_MODEL := $(or $(MODEL),meta-llama/Llama-3.2-1B)
smoke: $(READY)  ## the pipeline on MODEL=meta-llama/Llama-3.2-1B LIMIT=5 (or any other model)
	@mkdir -p out
	@$(HCL) sample -m '$(SMOKE_MODEL)' -d '$(or $(DATASET),triviaqa)' --limit $(or $(LIMIT),5) -n $(or $(SAMPLES),5) > out/smoke.path || { \
	  code=$$?; \
	  echo "smoke: $(SMOKE_MODEL) was NOT run. A gated model wants its licence accepted on its Hub page and a token"; \
	  echo "  (hf auth login, or HF_TOKEN=...). Without one: make smoke MODEL=lab DATASET=lab"; exit $$code; } >&2
	@$(HCL) score < out/smoke.path | $(HCL) hcb

smoke-offline: $(READY) ## the pipeline on the lab model and on a random model with Llama 3.2's config features
	@mkdir -p out
	$(BIN)/python -m hcl_cli.lab.random_llama out/random-llama
	@export $(OFFLINE); for model in lab out/random-llama; do \
	  echo "smoke: $$model"; \
	  $(HCL) sample -m $$model --limit $(or $(LIMIT),5) -n $(or $(SAMPLES),5) --store out/smoke \
	    | $(HCL) score --judge alias,exact --cluster cosine,exact --store out/smoke \
	    | $(HCL) hcb --calibration --rejection --compare --power --store out/smoke; \
	  $(HCL) sample -m $$model --limit $(or $(LIMIT),5) -n $(or $(SAMPLES),5) --store out/smoke | $(HCL) score --store out/smoke \
	    | $(HCL) entropy -m $$model --of layers,attention,tokens --store out/smoke; \
	  $(HCL) lens "What is the capital of France?" -m $$model --store out/smoke; \
	  $(HCL) probe -m $$model --limit 200 --split random --classifier logistic --store out/smoke; \
	  $(HCL) sample -m $$model --limit 3 -n 3 --strategy self-speculative --store out/smoke > /dev/null; \
	  $(HCL) prune -m $$model -d lab --limit 20 --metrics parameters --store out/smoke; \
	done

TABLE_MODEL := $(or $(MODEL),facebook/layerskip-llama3.2-1B)
# What the paper describes, what its published script ran, or both in one table and figure.
TABLE_STRATEGIES := $(if $(filter both,$(STRATEGY)),early-exit self-speculative,$(or $(STRATEGY),early-exit))
table-hcb: $(READY) ## HCB per exit layer as published: MODEL=... DATASET=triviaqa, n = 50, STRATEGY=early-exit|self-speculative|both
	@mkdir -p tables figures
	for strategy in $(TABLE_STRATEGIES); do \
	  $(HCL) sample -m '$(TABLE_MODEL)' -d '$(or $(DATASET),triviaqa)' $(if $(LIMIT),--limit $(LIMIT)) \
	    -n $(or $(SAMPLES),50) --exit-layers all --strategy $$strategy | $(HCL) score; \
	done | $(HCL) hcb - --weights figure --table tables/hcb.md --figure figures/hcb.svg
	@echo "tables/hcb.md figures/hcb.svg"

PROBE_MODEL := $(or $(MODEL),meta-llama/Llama-2-7b-chat-hf)
table-probe: $(READY) ## truthfulness probes beside the published numbers: MODEL=meta-llama/Llama-2-7b-chat-hf, SEEDS=10
	@mkdir -p tables figures
	$(HCL) probe -m '$(PROBE_MODEL)' -d '$(or $(DATASET),true_false:published)' --seeds $(or $(SEEDS),10) \
	  $(if $(LIMIT),--limit $(LIMIT)) --split $(or $(SPLIT),topic) --state-dtype float16 --table tables/probe.md \
	  --published-table tables/probe-published.md --figure figures/probe.svg
	@echo "tables/probe.md tables/probe-published.md figures/probe.svg"

DOLA_MODEL := $(or $(MODEL),huggyllama/llama-7b)
DOLA := $(HCL) dola -m '$(DOLA_MODEL)' -d truthfulqa --prompt truthfulqa $(if $(LIMIT),--limit $(LIMIT))
# The reference asks one question at a time, so that its average over the batch is over one row: @per-row. The second
# vanilla truncates and penalises as DoLa does: what DoLa has beyond it is the contrast's.
DOLA_METHODS := vanilla,vanilla@alpha=0.1@penalty=1.2,dola-high,dola-high@published@per-row
table-dola: $(READY) ## text metrics of vanilla and DoLa beside the published numbers: MODEL=huggyllama/llama-7b
	@mkdir -p tables figures
	$(DOLA) --methods '$(DOLA_METHODS)' --metrics all --table tables/dola.md \
	  --published-table tables/dola-published.md --figure figures/dola.svg
	@echo "tables/dola.md tables/dola-published.md figures/dola.svg"

table-dola-mc: $(READY) ## TruthfulQA MC1, MC2, MC3 of vanilla and DoLa, constrained and not, beside the published numbers
	@mkdir -p tables
	$(DOLA) --methods 'vanilla,vanilla@alpha=0.1,dola-high,dola-high@published@per-row' --metrics none --choices --table tables/dola-mc.md \
	  --published-table tables/dola-mc-published.md
	@echo "tables/dola-mc.md tables/dola-mc-published.md"

# Scored answers of every data set in DATASETS, one path a line. Sets by hub: name want --columns: data/sets/README.md.
LAYERS_MODEL := $(or $(MODEL),openai-community/gpt2-medium)
LAYERS_ANSWERS = for data in $(or $(DATASETS),triviaqa nq_open truthfulqa); do \
	  $(HCL) sample -m '$(LAYERS_MODEL)' -d "$$data" $(if $(LIMIT),--limit $(LIMIT)) -n $(or $(SAMPLES),10) --exit-layers all \
	  | $(HCL) score; done > out/layers.paths
table-layers: $(READY) ## accuracy@50, coverage@50, ECE, Brier per exit layer: MODEL=openai-community/gpt2-medium DATASETS="triviaqa nq_open"
	@mkdir -p out tables
	$(LAYERS_ANSWERS)
	$(HCL) hcb --calibration --calibration-table tables/layers.md < out/layers.paths
	@echo "tables/layers.md"

figure-layers: $(READY) ## the same as four panels over exit layers, a curve per data set
	@mkdir -p out figures
	$(LAYERS_ANSWERS)
	$(HCL) hcb --calibration --calibration-figure figures/layers.svg < out/layers.paths
	@echo "figures/layers.svg"

table-judges: $(READY) ## precision, recall and kappa of each judge against people (EfficientQA): NLI=FOLDER_OR_NAME for entailment too
	@mkdir -p tables
	$(HCL) score --people efficientqa --judge alias,exact,contains,published$(if $(NLI),$(comma)nli --nli-model '$(NLI)') \
	  --cluster exact --people-table tables/judges.md
	@echo "tables/judges.md"

PRUNE_MODEL := $(or $(MODEL),meta-llama/Llama-3.2-3B)
PRUNE := $(HCL) prune -m '$(PRUNE_MODEL)' $(if $(DATASET),-d '$(DATASET)') $(if $(LIMIT),--limit $(LIMIT))
table-prune: $(READY) ## share of quality kept with 25 % of the blocks removed, each criterion: MODEL=meta-llama/Llama-3.2-3B
	@mkdir -p tables figures
	$(PRUNE) --criterion all --fraction 0.25 --search greedy --table tables/prune.md --retained-table tables/retained.md \
	  --figure figures/blocks.svg $(if $(SWEEP),--sweep $(SWEEP) --quality-figure figures/quality.svg)
	@echo "tables/prune.md tables/retained.md figures/blocks.svg $(if $(SWEEP),figures/quality.svg)"

figure-activations: $(READY) ## variance, L1, L2, Frobenius norm and sparsity per block: MODEL=meta-llama/Llama-3.2-3B
	@mkdir -p figures
	$(PRUNE) --criterion avss --no-damage --metrics none --activations-figure figures/activations.svg
	@echo "figures/activations.svg"

clean:           ## remove what make made here; the store (.hcl) stays
	rm -rf out tables figures $(VENV) .mypy_cache .ruff_cache
