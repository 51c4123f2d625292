# `make demo` and `make test` are each sufficient alone on a fresh clone with Python 3.11 to 3.13 and its venv module.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed
EXTRAS := .venv/extras-installed
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --progress-bar off --quiet -c constraints.txt
# What must hold on JAX too: everything about the packages `callbacks` and `kerascnn`.
ON_JAX := callbacks kerascnn $(addprefix tests/test_,$(addsuffix .py,alarms architectures arithmetic batch_norm batch_size borrow callbacks checkpoint combinators \
	curves deadline decoders diagnosis divergence families fold freeze fully_convolutional gradient_noise groups imports interrupt json_log \
	lr_finder monitor multi_task network_contract optimizers pages plateau rate_callbacks schedules snapshot_ensemble \
	hardest steps throughput training weight_average whitening))

# What is skipped without the extras: other runtimes, other projects' clients, a browser, Ray.
WITH_EXTRAS := $(addprefix tests/test_,$(addsuffix .py,export_command export_formats tensorboard_log warmup_requests \
	hosts pages_browser serve_browser serve_clients serve_growing serve_grpc serve_loading serve_ray serve_rest_v1 \
	serve_runners))

.PHONY: help demo test test-extras test-slow bench setup lint

help:
	@echo "make demo         train on handwritten digits: submission, expected score, SavedModel, report (2 minutes)"
	@echo "make test         run the tests of the default installation"
	@echo "make test-extras  test all published weights; install the extras, test them, and on JAX what must hold there too"
	@echo "make test-slow    all slow tests: what make test shows for one network of each family, for all 56"
	@echo "make bench        measure speed side by side"
	@echo "make setup        create .venv and install, nothing else"
	@echo "make lint         ruff and mypy"

demo: $(INSTALLED)
	$(BIN)/kerascnn compete digits

# In parts: a process that has computed with TensorFlow for an hour has grown to 12 GiB. All run, whichever fail.
test: $(INSTALLED)
	@failed=; for part in "kerascnn callbacks pipelines apps tests/test_[a-d]*.py" \
		"tests/test_[e-m]*.py" "tests/test_[n-r]*.py" "tests/test_[s-z]*.py"; do \
		$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow" $$part || failed=1; done; test -z "$$failed"

test-extras: $(EXTRAS)
	$(BIN)/python -m pytest -n 2 --dist worksteal -m slow tests/test_imagenet.py tests/test_transfer.py
	$(BIN)/python -m pytest -n 2 --dist worksteal $(WITH_EXTRAS)
	KERAS_BACKEND=jax $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow" $(ON_JAX)

test-slow: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 --dist worksteal -m slow

bench: $(INSTALLED)
	$(BIN)/kerascnn bench pipeline

setup: $(INSTALLED)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Installed anew only when the list of dependencies has changed.
$(INSTALLED): pyproject.toml constraints.txt
	@echo "Creating .venv with $$($(PYTHON) --version) and installing the versions of constraints.txt (a few minutes, once)"
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else "Python 3.11 to 3.13 is needed, this is %d.%d: make PYTHON=python3.12 ..." % v)'
	$(PYTHON) -m venv .venv
	$(INSTALL) -e '.[dev]'
	@touch $@
	@echo "Installed."

$(EXTRAS): $(INSTALLED)
	$(INSTALL) -e '.[dev,jax,openvino,onnx,litert,grpc,ray,tensorboard,clients]'
	@command -v chromium > /dev/null || (apt-get update -qq && apt-get install -y -qq chromium) > /dev/null \
	|| echo "No Chromium, and none could be installed: the tests in a browser will be skipped."
	@touch $@
