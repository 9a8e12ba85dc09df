# gort. `make demo`, `make test`, `make bench` and `make lint` set up all they
# need in a virtual environment of their own (.venv) on a machine that has a C
# compiler and Python 3.11 or later; what they need from PyPI is fetched once.
#
#   make demo [ARGS="PATH --ring 1000"]   the digest pipeline and the ring
#   make test                C tests, the same under sanitizers, then pytest
#   make pytest [ARGS=...]   only pytest
#   make recipes             only tests/recipes, with the servers and packages it needs (as root, it
#                            installs what is missing of the servers)
#   make test-all-pythons    pytest on every CPython found by pyenv, and GORT_PYTHONS
#   make soak [SECONDS=3600] everything at once, for 60 s; nothing may be lost or grow
#   make bench [ARGS=--quick]   gort beside its peers; all of it takes about 25 minutes
#   make lint                ruff, mypy, cython-lint
#   make lib                 build/libgort.a, the runtime without Python
#   make ctest               tests/c/test_*.c against it
#   make sanitize            the same under ThreadSanitizer and under AddressSanitizer + UBSan
#   make clean, make distclean   what was built; the virtual environments as well
#
# Variables: PYTHON (python3), VENV (.venv), CC, ARGS, GORT_WERROR=1 (warnings in
# our C are errors), GORT_DEBUG_BUILD=1 (assertions), GORT_STRESS_SCALE (how long
# stress tests run, 1 by default).

PYTHON ?= python3
VENV ?= .venv
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo test pytest recipes soak test-all-pythons bench run-bench lint lib ctest sanitize \
        tsan asan ext clean distclean
.DELETE_ON_ERROR:

help:
	@sed -n '1,/^$$/s/^# \{0,1\}//p' Makefile

# ---- the C runtime without Python ---------------------------------------
# BUILD, SAN, RUN and LDFLAGS make the other kinds of it: sanitized (below) and
# for another machine (tools/aarch64_test.sh).
BUILD ?= build
SAN ?=
RUN ?=
CTEST_TIMEOUT ?= 300

MACHINE := $(firstword $(subst -, ,$(shell $(CC) -dumpmachine 2>/dev/null)))
LIB_SOURCES := $(filter-out csrc/pyctx%.c,$(wildcard csrc/*.c)) csrc/switch_$(MACHINE).S
LIB_OBJECTS := $(LIB_SOURCES:%=$(BUILD)/obj/%.o)
CTESTS := $(patsubst tests/c/%.c,$(BUILD)/ctest/%,$(sort $(wildcard tests/c/test_*.c)))

OPT := -O2
ifneq ($(filter-out 0,$(GORT_DEBUG_BUILD)),)
OPT := -O1 -DGORT_DEBUG_LEVEL=2
endif
WERROR := $(if $(filter-out 0,$(GORT_WERROR)),-Werror)
C_FLAGS = -std=gnu11 $(OPT) -g -pthread -fno-strict-aliasing -fvisibility=hidden -ftls-model=initial-exec \
          -Wall -Wextra $(WERROR) -Icsrc/include -Icsrc $(SAN) $(CFLAGS) -fno-exceptions

lib: $(BUILD)/libgort.a

$(BUILD)/libgort.a: $(LIB_OBJECTS)
	@rm -f $@
	$(AR) rcs $@ $^

$(BUILD)/obj/%.o: % $(BUILD)/flags
	@mkdir -p $(@D)
	$(CC) $(C_FLAGS) -MMD -MP -c $< -o $@

$(BUILD)/ctest/%: tests/c/%.c $(BUILD)/libgort.a
	@mkdir -p $(@D)
	$(CC) $(C_FLAGS) -MMD -MP $< $(BUILD)/libgort.a -lm $(LDFLAGS) -o $@

# Holds the flags and is new when they differ, which makes all the objects anew.
$(BUILD)/flags: FORCE
	@mkdir -p $(@D)
	@echo '$(CC) $(C_FLAGS)' | cmp -s - $@ || echo '$(CC) $(C_FLAGS)' > $@
FORCE:

ctest: $(CTESTS)
	@failed=; for t in $(CTESTS); do \
	    echo "== $$t"; \
	    timeout $(CTEST_TIMEOUT) $(RUN) $$t; rc=$$?; \
	    if [ $$rc = 124 ]; then echo "$$t: no end after $(CTEST_TIMEOUT) s"; fi; \
	    if [ $$rc != 0 ]; then echo "$$t: exit status $$rc"; failed="$$failed $$t"; fi; \
	done; \
	if [ -n "$$failed" ]; then echo "C tests that failed:$$failed"; exit 1; fi; \
	echo "C tests passed: $(words $(CTESTS)) ($(BUILD))"

-include $(LIB_OBJECTS:.o=.d) $(CTESTS:=.d)

# ---- sanitizers ------------------------------------------------------------
# Where it may be, address space randomisation is off: gcc's ThreadSanitizer
# gives up on kernels that randomise more bits than it knows of.
NOASLR = $(shell setarch $(MACHINE) -R true 2>/dev/null && echo setarch $(MACHINE) -R)
SANITIZED = $(MAKE) --no-print-directory ctest OPT="-O1 -DGORT_DEBUG_LEVEL=2" RUN="$(NOASLR)"

sanitize:
	@$(MAKE) --no-print-directory tsan
	@$(MAKE) --no-print-directory asan

tsan:
	@TSAN_OPTIONS="halt_on_error=1:second_deadlock_stack=1:history_size=4:$$TSAN_OPTIONS" \
	    $(SANITIZED) BUILD=build/tsan SAN="-fsanitize=thread -fno-omit-frame-pointer -Wno-error=tsan"

asan:
	@ASAN_OPTIONS="halt_on_error=1:strict_string_checks=1:$$ASAN_OPTIONS" \
	 UBSAN_OPTIONS="print_stacktrace=1:halt_on_error=1:$$UBSAN_OPTIONS" \
	    $(SANITIZED) BUILD=build/asan \
	    SAN="-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer"

# ---- Python ------------------------------------------------------------------
# $(VENV)/.ok: there is an environment that can build; $(VENV)/.test and the like:
# that extra is installed, and gort with it as an editable install. `ext` brings
# the extension module up to date, which costs a second if it is.
PY = $(VENV)/bin/python
PIP = $(PY) -m pip --disable-pip-version-check

$(VENV)/.ok:
	@tools/make_venv.sh $(PYTHON) $(VENV)
	@touch $@

$(VENV)/.%: pyproject.toml setup.py $(VENV)/.ok
	@echo "Setting up gort[$*] in $(VENV)"
	@PYTHONWARNINGS=ignore $(PIP) install -qq --no-build-isolation -e '.[$*]'
	@touch $@

ext:
	@$(PY) setup.py --quiet build_ext --inplace

demo: $(VENV)/.examples
	@$(MAKE) --no-print-directory ext
	$(PY) examples/digest.py $(ARGS)

test:
	@$(MAKE) --no-print-directory ctest
	@GORT_STRESS_SCALE="$${GORT_STRESS_SCALE:-0.1}" $(MAKE) --no-print-directory sanitize
	@$(MAKE) --no-print-directory pytest

pytest: $(VENV)/.test
	@$(MAKE) --no-print-directory ext
	$(PY) -m pytest $(ARGS)

recipes: $(VENV)/.test $(VENV)/.recipes
	@tools/recipes_servers.sh || echo "make: what has no server is skipped"
	@$(MAKE) --no-print-directory ext
	$(PY) -m pytest tests/recipes $(ARGS)

SECONDS ?= 60
soak: $(VENV)/.test
	@$(MAKE) --no-print-directory ext
	$(PY) -m benchmarks.soak --seconds $(SECONDS) $(ARGS)

# The main interpreter is one of them: an environment for each, .venv-3.12 and so on.
GORT_PYTHONS ?=
ALL_PYTHONS = $(sort $(wildcard $(HOME)/.pyenv/versions/3.1[1-9]*/bin/python3)) $(GORT_PYTHONS)

test-all-pythons:
	@set -e; for p in $(ALL_PYTHONS); do \
	    v=$$($$p -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	    echo "== Python $$v ($$p)"; \
	    $(MAKE) --no-print-directory pytest PYTHON=$$p VENV=.venv-$$v; \
	done

# On CPython 3.13 where pyenv has it: there all the peers are to be had (runloom
# does not build on 3.11), and the figures on record are its.
BENCH_PYTHON ?= $(firstword $(wildcard $(HOME)/.pyenv/versions/3.13*/bin/python3) $(PYTHON))

bench:
	@$(MAKE) --no-print-directory run-bench PYTHON=$(BENCH_PYTHON) VENV=$(VENV)-bench

run-bench: $(VENV)/.bench
	@$(MAKE) --no-print-directory ext lib
	$(PY) -m benchmarks --json build/bench.json --plot build/bench.png $(ARGS)

lint: $(VENV)/.lint
	@$(MAKE) --no-print-directory ext
	$(PY) -m ruff check
	$(PY) -m mypy
	$(VENV)/bin/cython-lint --no-pycodestyle gort examples

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -f gort/_core/_runtime.c gort/_core/_runtime.*.so
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +

distclean: clean
	rm -rf .venv .venv-*
