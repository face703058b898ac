# make run    set up, run the quick course, write its report; results go to outputs/quick
# make test   set up and run all tests, including the notebooks
# make lab    set up and open JupyterLab on copies of the notebooks, in outputs/lab
# make book   build a web site of the notebooks in outputs/book
# make tour   record the video tour from videotour/script.md (chromium and ffmpeg)
# make badges show where this clone can be opened in Binder and Colab
# make soak   train, kill and resume for an hour (or: make soak ARGS=MINUTES)
# make fuzz   read 80,000 files and values changed at random (about ten minutes)
# make clean  remove the environment and the caches, but not the results

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
NOTEBOOKS := $(wildcard notebooks/*.ipynb)

.PHONY: run test lab notebooks lint lock book tour badges soak fuzz clean

run: $(READY)
	$(BIN)/deepcolor run --jobs 2 $(ARGS)
	$(if $(ARGS),,$(BIN)/deepcolor report)

# Two workers with one thread each: a second thread hardly speeds up small networks.
test: $(READY)
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/pytest -n 2 --dist loadscope \
		--nbval-lax --nbval-current-env --nbval-cell-timeout 600 $(ARGS)

lab: $(READY)
	$(BIN)/deepcolor student outputs/lab --solutions --keep
	$(BIN)/jupyter lab --ServerApp.root_dir="$(CURDIR)" outputs/lab/00_start.ipynb

# Execute all notebooks in place on the portraits, so they can be committed with outputs.
notebooks: $(READY)
	DEEPCOLOR_IMAGES=portraits DEEPCOLOR_RUN_DIR=$$(mktemp -d) $(BIN)/jupyter nbconvert \
		--to notebook --inplace --execute --ExecutePreprocessor.record_timing=False \
		$(NOTEBOOKS)

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check

# Update requirements.lock: this torch, built for the CPU, and the newest versions of the
# others within the ranges in pyproject.toml.
lock:
	rm -rf .venv-lock && $(PYTHON) -m venv .venv-lock
	.venv-lock/bin/pip install --quiet torch==2.13.0 "setuptools>=77" -e ".[test]"
	.venv-lock/bin/pip freeze --all --exclude-editable --exclude pip \
		| sed 's/+cpu$$//' > requirements.lock
	rm -rf .venv-lock

# The stored notebooks as a web site. Its packages stay out of the course's environment.
book: .venv-book/ready
	.venv-book/bin/python -m sphinx -q -c book . outputs/book
	@echo "The book is in outputs/book/index.html"

.venv-book/ready: book/requirements.txt
	$(PYTHON) -m venv .venv-book
	.venv-book/bin/pip install --quiet --disable-pip-version-check -r book/requirements.txt
	touch $@

tour: $(READY)
	$(BIN)/deepcolor tour $(ARGS)

soak: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python tests/soak.py $(ARGS)

fuzz: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 --timeout 0 --hypothesis-profile fuzz \
		tests/faults/test_fuzz.py $(ARGS)

badges:
	@$(PYTHON) book/badges.py

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c "import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))" \
		|| { echo "This needs Python 3.11 to 3.13; try make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps \
		--no-build-isolation -e .
	$(BIN)/python -c "from helpers.training import narrow; narrow.prepare()"
	touch $(READY)

clean:
	rm -rf .venv .venv-lock .venv-book *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
