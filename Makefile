# Two commands do everything: `make reproduce` and `make test`. Both set up a virtual environment first.
PYTHON ?= python3
VENV ?= .venv
PROFILE ?= quickstart
BIN := $(VENV)/bin

.PHONY: help setup reproduce test lint format figures clean

help:
	@echo "make reproduce [PROFILE=quickstart]   install, fetch, run, and print the results table"
	@echo "make test                             install, lint, and run all tests"
	@echo "make setup                            only the virtual environment $(VENV)"
	@echo "make format                           format code and strip notebooks"
	@echo "make figures                          copy the figures of a finished run to figures/"
	@echo "make clean                            remove runs and everything made (not what was fetched)"

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
		|| { echo "error: $(PYTHON) is missing or older than Python 3.11: call make PYTHON=/path/to/python3.11"; exit 2; }
	@echo "installing into $(VENV); this takes a few minutes once"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@$(BIN)/python -m syn2real_utils.ffmpeg
	@$(BIN)/python -m syn2real_utils.torchaudio_cpu
	@touch $@

reproduce: setup
	@$(BIN)/syn2real run $(PROFILE)

lint: setup
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/nbstripout --verify --keep-id notebooks/*.ipynb
	@$(BIN)/mypy

test: setup lint
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

format: setup
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format
	@$(BIN)/nbstripout --keep-id notebooks/*.ipynb

# The committed figures, from a finished run: figures, the CSV behind each, and what made them.
figures: setup
	@$(BIN)/syn2real figures $(PROFILE) -o figures$(if $(filter-out quickstart,$(PROFILE)),/$(PROFILE))

clean:
	rm -rf runs data/synthetic data/corpora .snakemake
