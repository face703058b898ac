# make run    set up and run the quick course: results in outputs/quick/results.md
# make test   set up and pass every test, the notebooks among them
# make lab    set up and open JupyterLab on the notebooks
# make clean  remove the environment and what the tests leave; results stay

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
NOTEBOOKS := $(wildcard notebooks/*.ipynb)

.PHONY: run test lab notebooks lint lock clean

run: $(READY)
	$(BIN)/deepcolor run $(ARGS)

# Two workers of one thread each: small networks gain little from a second thread.
test: $(READY)
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/pytest -n 2 --dist loadscope \
		--nbval-lax --nbval-current-env --nbval-cell-timeout 600 $(ARGS)

lab: $(READY)
	$(BIN)/jupyter lab notebooks

# Execute every notebook in place, on the portraits, as it is committed.
notebooks: $(READY)
	DEEPCOLOR_IMAGES=portraits DEEPCOLOR_RUN_DIR=$$(mktemp -d) $(BIN)/jupyter nbconvert \
		--to notebook --inplace --execute --ExecutePreprocessor.record_timing=False \
		$(NOTEBOOKS)

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check

# Renew requirements.lock from pyproject.toml: the newest versions in its ranges.
lock:
	rm -rf .venv-lock && $(PYTHON) -m venv .venv-lock
	.venv-lock/bin/pip install --quiet torch==2.13.0 "setuptools>=77" -e ".[test]"
	.venv-lock/bin/pip freeze --all --exclude-editable --exclude pip \
		| sed 's/+cpu$$//' > requirements.lock
	rm -rf .venv-lock

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c "import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))" \
		|| { echo "Python 3.11 to 3.13 is needed: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps \
		--no-build-isolation -e .
	touch $(READY)

clean:
	rm -rf .venv .venv-lock *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
