# make demo | eval-demo | eval-regions | eval-honesty | eval-evidence | eval-choices | evaluate-demo | language-data | train-demo | test | check | fuzz | chaos | attack | check-api | check-sr | replicas | resumable | archive | images | stack | vllm-variants | vllm-kinds | hierarchy | encoders | charts | bench | load | gpu-check | doctor | clean; each needs only make and Python 3.11 or newer.
# On another Python: make demo PYTHON=python3.12

PYTHON ?= python3
# With := the environment's own PORT or DATA_DIR is not meant; the command line still wins.
PORT := 8000
DATA_DIR := data
WORK := data/training
BIN := .venv/bin
LOCKED_OPTION = $(if $(filter-out 0,$(LOCKED)),--locked) $(if $(BUILDS),--builds $(BUILDS))
DEPLOY := deploy/language_data.py deploy/cuda_environment.py deploy/cuda_imports.py deploy/lock_environments.py deploy/audit_locks.py deploy/pin_images.py deploy/make_environments.py deploy/environments.py deploy/pip_configuration.py \
	deploy/container_engine.py deploy/build_images.py deploy/list_components.py deploy/vendor_page.py

.PHONY: help environments server-environment language-data bench-environment load-environment demo eval-demo eval-regions eval-honesty eval-evidence eval-choices evaluate-demo train-demo bench bench-large load gpu-check doctor lint test check fuzz chaos attack api-environment check-api check-sr replicas resumable archive images stack vllm-variants vllm-kinds hierarchy encoders two-models charts locks audit cuda-environment pin-images vendor-page pictures clean

help:
	@echo 'make demo [ONCE=1] [SEED=n] [MODEL=demo] [PORT=8000] [DATA_DIR=data]'
	@echo '              install, start everything, ask about a synthetic slide'
	@echo 'make eval-demo [SLIDES=60] [JSON=out.json]'
	@echo '              how well the demo model answers about slides that it never saw'
	@echo 'make eval-regions [SLIDES=40] [JSON=out.json]'
	@echo '              whether it tells which quadrant of an unseen slide has necrosis'
	@echo 'make eval-honesty [SLIDES=20] [JSON=out.json] [BESIDE="control=a.json before=b.json"]'
	@echo '              whether answers turn with the wording, and what it says where it knows nothing'
	@echo 'make evaluate-demo [SLIDES=12] [RUN=data/evaluate-demo] [ABLATIONS=1]'
	@echo '              the demo model beside a text-only rival and one of thumbnails, with all conditions; a report'
	@echo 'make eval-evidence [SLIDES=40] [JSON=out.json]'
	@echo '              whether evidence lies where the necrosis is, and whether slides are known as familiar'
	@echo 'make eval-choices [SLIDES=20] [JSON=out.json]'
	@echo '              whether closed questions are answered as well with choices as without'
	@echo 'make train-demo [WORK=data/training] [OUT=folder/demo]'
	@echo '              train the demo model anew, or go on where it was interrupted'
	@echo 'make test     install, lint, types, all tests'
	@echo 'make check    lint, types, the tests that start no vLLM'
	@echo 'make fuzz [SEED=1] [MINUTES=10] [SLIDE=a.svs]'
	@echo '              read slides drawn or damaged in ways that the suite has not seen'
	@echo 'make chaos [JOBS=60] [KILLS=30] [SEED=1] [STAND_IN=1]'
	@echo '              kill processes at random while slides are encoded, then count; a quarter of an hour'
	@echo 'make attack [STAND_IN=1] [ONLY="hang_ups floods"] [SHARE=0.1] [JSON=out.json]'
	@echo '              attack a server started for it, on loopback only; half an hour'
	@echo 'make check-sr'
	@echo '              reports as DICOM SR, written with highdicom, read by pydicom and by dsrdump of Debian'"'"'s dcmtk'
	@echo 'make check-api [MINUTES=5] [SEED=1]'
	@echo '              requests made from the OpenAPI document, right and wrong ones, on a server started for it'
	@echo 'make resumable [MB=2000]'
	@echo '              upload a large slide through twenty cuts, a kill and a change of replica; installs tus-js-client (npm)'
	@echo 'make archive  a real Orthanc pushes, is pulled from and fetches; needs Debian'"'"'s orthanc and orthanc-dicomweb'
	@echo 'make replicas two of each behind HAProxy, killed and drained under load; needs haproxy'
	@echo 'make two-models two models behind a real vLLM each, one killed; five minutes'
	@echo 'make images [BUILDS=cpu] [TAG=local] [ENGINE=docker|podman] [BASES=debian]'
	@echo '              build the images, look at them, list their components in build/images'
	@echo 'make stack [ENGINE=docker|podman] [BASES=debian]'
	@echo '              start docker-compose.yml with them, ask through HAProxy, kill a replica of each'
	@echo 'make charts   render the Helm chart and hold it against Kubernetes schemas; installs 100 MB for it'
	@echo 'make bench [LONG=1] [SLIDE=a.svs] [GIGAPATH=checkout] [TRIDENT=checkout]'
	@echo '              how fast slides are read and encoded, on synthetic slides (600 MB in data/benchmarks)'
	@echo 'make bench-large [SIDES="16384 61440"]'
	@echo '              what slides of 1 to 100 GB decoded cost a worker, in time and memory a tile'
	@echo 'make load [LONG=1]'
	@echo '              how fast a server is under load, against servers that it starts itself (5 GB of disk when long)'
	@echo 'make gpu-check [SMALL=1] [DEVICE=cuda] [ONLY="ceilings tile_speed"] [GPU_PYTHON=python]'
	@echo '              what a GPU makes of the encoders, the projector and the trainer; SMALL=1 DEVICE=cpu: do the checks run?'
	@echo 'make doctor   what is wrong on this machine, and what to do'
	@echo 'make locks [UPGRADE=1]'
	@echo '              write deploy/locks: every package of every environment with its hashes'
	@echo 'make audit    look up every locked package in the OSV database'
	@echo 'make cuda-environment [ONLY=worker|vllm]'
	@echo '              install the CUDA environments and import them, without a GPU, then remove them: 14 GB of disk'
	@echo 'make pictures'
	@echo '              draw the pictures of the page in docs/pictures; needs Chromium'
	@echo 'make vendor-page'
	@echo '              fetch the code of others that the page holds, and hold it against its recorded hashes; needs npm'
	@echo 'make pin-images'
	@echo '              write the digests of other people'"'"'s images behind their tags; needs docker'
	@echo 'LOCKED=1      beside demo, test, environments …: install exactly what deploy/locks names'
	@echo 'BUILDS=cpu    beside the same: the CPU builds, or with cuda the CUDA builds, whatever nvidia-smi says'
	@echo 'make language-data'
	@echo '              WordNet and punkt_tab for the text metrics of `eyepiece evaluate`'
	@echo 'make clean    remove environments and caches; data/ stays'

environments:
	@$(PYTHON) deploy/make_environments.py $(LOCKED_OPTION)

server-environment:
	@$(PYTHON) deploy/make_environments.py --only server $(LOCKED_OPTION)

bench-environment:
	@$(PYTHON) deploy/make_environments.py --only bench

# What the text metrics of `eyepiece evaluate` need; tests of them are skipped where it cannot be had.
language-data: server-environment
	@$(BIN)/python deploy/language_data.py --if-possible

# Apart, because locust brings gevent and a pytest plugin along. Through pip, which knows where to install from.
load-environment: server-environment
	@test -x .venv-load/bin/locust || { $(PYTHON) -m venv .venv-load && \
		$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]["load"])' | \
		.venv-load/bin/python -m pip install --quiet --requirement /dev/stdin; }

demo: environments
	@$(if $(MODEL),EYEPIECE_MODEL=$(MODEL)) $(BIN)/eyepiece demo --port $(PORT) --data-dir $(DATA_DIR) $(if $(filter-out 0,$(ONCE)),--once) $(if $(SEED),--seed $(SEED))

eval-regions: environments
	@$(BIN)/eyepiece eval-regions $(if $(SLIDES),--slides $(SLIDES)) $(if $(JSON),--json $(JSON))

eval-honesty: environments
	@$(BIN)/eyepiece eval-honesty $(if $(SLIDES),--slides $(SLIDES)) $(if $(JSON),--json $(JSON)) $(foreach run,$(BESIDE),--beside $(run))

evaluate-demo: environments language-data
	@$(BIN)/eyepiece evaluate demo --out $(or $(RUN),data/evaluate-demo) $(if $(SLIDES),--slides $(SLIDES)) $(if $(filter-out 0,$(ABLATIONS)),--ablations)

eval-evidence: environments
	@$(BIN)/eyepiece eval-evidence $(if $(SLIDES),--slides $(SLIDES)) $(if $(JSON),--json $(JSON))

eval-choices: environments
	@$(BIN)/eyepiece eval-choices $(if $(SLIDES),--slides $(SLIDES)) $(if $(JSON),--json $(JSON))

eval-demo: environments
	@$(BIN)/eyepiece eval-demo $(if $(SLIDES),--slides $(SLIDES)) $(if $(JSON),--json $(JSON))

train-demo: server-environment
	$(BIN)/python -m training demo --work $(WORK) $(if $(OUT),--out $(OUT))

bench: bench-environment
	.venv-bench/bin/python -m benchmarks $(if $(filter-out 0,$(LONG)),--long) $(if $(SLIDE),--slide $(SLIDE)) $(if $(GIGAPATH),--gigapath $(GIGAPATH)) $(if $(TRIDENT),--trident $(TRIDENT))

bench-large: bench-environment
	.venv-bench/bin/python -m benchmarks.large_slides $(if $(SIDES),--sides $(SIDES))

load: environments load-environment
	$(BIN)/python -m loadtests $(if $(filter-out 0,$(LONG)),--long)

# GPU_PYTHON: one that has what the checks need, where nothing can be installed (docs/gpu.md).
gpu-check: $(if $(GPU_PYTHON),,server-environment)
	$(or $(GPU_PYTHON),$(BIN)/python) -m benchmarks.gpu_check $(if $(DEVICE),--device $(DEVICE)) $(if $(filter-out 0,$(SMALL)),--small) $(if $(ONLY),--only $(ONLY))

doctor: server-environment
	@$(BIN)/eyepiece doctor

lint:
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/mypy $(DEPLOY)

# Two at a time: as many as the smallest machine has cores, so each with one thread: more of them wait for each other and
# burn the core that the other test needs. Bytecode is written, whatever the shell says: some hundred processes of the
# tests import torch, and compiling all that it imports takes 8 s of a core each time.
PYTEST = OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -n 2 --no-loadscope-reorder

test: environments language-data lint
	$(PYTEST)

check: server-environment language-data lint
	$(PYTEST) -m 'not vllm'

fuzz: server-environment
	$(BIN)/python tests/support/judge_pyramids.py $(if $(SEED),--seed $(SEED))
	$(BIN)/python tests/support/fuzz_longer.py $(if $(SEED),--seed $(SEED)) $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SLIDE),--slide $(SLIDE))

chaos: environments
	cd tests && ../$(BIN)/python -m chaos $(if $(JOBS),--jobs $(JOBS)) $(if $(KILLS),--kills $(KILLS)) $(if $(SEED),--seed $(SEED)) $(if $(filter-out 0,$(STAND_IN)),--stand-in)

attack: environments
	$(BIN)/python -m attacks $(if $(filter-out 0,$(STAND_IN)),--stand-in) $(if $(ONLY),--only $(ONLY)) $(if $(SHARE),--share $(SHARE)) $(if $(JSON),--json $(JSON))

# Apart, because schemathesis brings a pytest plugin along.
api-environment: server-environment
	@test -x .venv-api/bin/schemathesis || { $(PYTHON) -m venv .venv-api && \
		$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]["check-api"])' | \
		.venv-api/bin/python -m pip install --quiet --requirement /dev/stdin; }

check-api: api-environment
	$(BIN)/python -m attacks.check_api $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED))

vllm-variants: environments
	EYEPIECE_LONG_TESTS=1 $(BIN)/pytest -s tests/vllm_plugin/test_variants.py tests/vllm_plugin/test_prompt_ids.py tests/end_to_end/test_reference_answers.py

vllm-kinds: environments
	EYEPIECE_LONG_TESTS=1 $(BIN)/pytest -s tests/vllm_plugin/test_kinds.py tests/vllm_plugin/test_hwsi_answers.py tests/end_to_end/test_hwsi_from_published_files.py tests/vllm_plugin/test_slidechat.py tests/end_to_end/test_slidechat.py

hierarchy: server-environment
	EYEPIECE_LONG_TESTS=1 $(BIN)/pytest tests/encoders/hierarchical tests/encoders/slide_stages tests/server/test_levels_of_odd_slides.py

# The matrices of which `make test` runs a part, and the C++ compiler's code.
encoders: server-environment
	EYEPIECE_LONG_TESTS=1 $(BIN)/pytest tests/encoders/slide_encoder tests/encoders/tile_encoder tests/encoders/tiling

two-models: environments
	EYEPIECE_LONG_TESTS=1 $(BIN)/pytest -s tests/end_to_end/test_two_models.py tests/end_to_end/test_two_vllms.py

# Without npm its clients are left out, and the tests say so.
resumable: environments
	@mkdir -p build/tus-js && cp tests/support/tus_js_package.json build/tus-js/package.json
	@command -v npm > /dev/null && (cd build/tus-js && npm install --no-audit --no-fund --ignore-scripts --silent) || rm -rf build/tus-js
	EYEPIECE_LONG_TESTS=1 $(if $(MB),EYEPIECE_CUT_UPLOAD_MB=$(MB)) $(BIN)/pytest -s tests/end_to_end/test_cut_uploads.py tests/server/api/test_upload_clients.py

# Where Debian's orthanc and orthanc-dicomweb are installed.
archive: environments
	EYEPIECE_LONG_TESTS=1 $(BIN)/pytest -s tests/server/api/test_orthanc.py

replicas: environments
	EYEPIECE_LONG_TESTS=1 $(BIN)/pytest -s tests/end_to_end/test_replicas.py

# Which engine, and what BASES=debian does: deploy/container_engine.py.
ENGINE_CHOICE = $(if $(ENGINE),ENGINE=$(ENGINE)) $(if $(BASES),BASES=$(BASES))

images:
	$(ENGINE_CHOICE) $(PYTHON) deploy/build_images.py $(if $(BUILDS),--builds $(BUILDS)) $(if $(TAG),--tag $(TAG))

stack: server-environment
	$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]["stack"], sep="\n")' | \
		$(BIN)/python -m pip install --quiet --requirement /dev/stdin
	EYEPIECE_STACK=1 $(ENGINE_CHOICE) $(BIN)/pytest -s -x tests/end_to_end/test_compose_stack.py

check-sr: server-environment
	$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["sr"][1:], sep="\n")' | \
		$(BIN)/python -m pip install --quiet --requirement /dev/stdin
	$(BIN)/pytest tests/server/reports/test_sr.py tests/server/commands/test_report_as_sr.py

charts: server-environment
	$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]["charts"], sep="\n")' | \
		$(BIN)/python -m pip install --quiet --requirement /dev/stdin
	$(BIN)/pytest tests/repository/test_helm.py

locks: server-environment
	$(BIN)/python deploy/lock_environments.py $(if $(filter-out 0,$(UPGRADE)),--upgrade)

audit: server-environment
	$(BIN)/python deploy/audit_locks.py

cuda-environment: server-environment
	$(BIN)/python deploy/cuda_environment.py $(if $(ONLY),--only $(ONLY))

# The code of others that the page holds; needs npm.
vendor-page:
	$(PYTHON) deploy/vendor_page.py

pictures: environments
	PYTHONPATH=tests/support $(BIN)/python docs/pictures/draw_page.py

pin-images:
	$(PYTHON) deploy/pin_images.py

clean:
	rm -rf .venv .venv-vllm .venv-bench .venv-load .venv-api .venv-cuda .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
