# skiff: signed model deltas for fleets of edge boxes.  `make help` lists the targets.
#
# Every folder is one static library made of its *.c files; DEPS_<folder> is the only statement of which folders it may
# use, in the order the linker needs (see docs/architecture.md; tools/check_order.py holds the includes to it).
# Build files go to $(BUILD), never beside the sources; nothing is written there that is not listed here.

MAKEFLAGS += --no-builtin-rules --no-builtin-variables
# As many jobs as processors, unless the caller said otherwise: `make demo` alone should not compile on one core.
ifeq ($(MAKELEVEL)$(filter -j%,$(MAKEFLAGS)),0)
MAKEFLAGS += -j$(shell nproc)
endif
.DELETE_ON_ERROR:
SHELL := /bin/bash

ARCH    ?= native
SAN     ?=
PREFIX  ?= /usr/local
VERSION := 0.1.0
V       ?= 0
Q       := $(if $(filter 1,$(V)),,@)

ifeq ($(ARCH),arm64)
  CROSS     := aarch64-linux-gnu-
  PKG_ENV   := PKG_CONFIG_LIBDIR=/usr/lib/aarch64-linux-gnu/pkgconfig:/usr/share/pkgconfig
  BUILD     ?= build-arm64
  CC        := $(CROSS)gcc
  AR        := $(CROSS)gcc-ar
  MACHINE   := aarch64
else
  CROSS     :=
  PKG_ENV   :=
  CC        ?= gcc
  ifeq ($(origin CC),default)
    CC      := gcc
  endif
  AR        := ar
  MACHINE   := $(shell uname -m)
endif
ifneq ($(SAN),)
  BUILD     ?= build-$(SAN)
endif
BUILD       ?= build
PYTHON      ?= python3
WRAP        := $(if $(filter arm64,$(ARCH)),--wrap qemu-aarch64)

# ---- flags ------------------------------------------------------------------------------------------------------------
WARN     := -Wall -Wextra -Werror -Wshadow -Wvla -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wwrite-strings \
            -Wformat=2 -Wundef -Wno-unused-parameter
HARDEN   := -fstack-protector-strong -fPIE -fno-strict-aliasing -fno-delete-null-pointer-checks
ifeq ($(MACHINE),x86_64)
  HARDEN += -fcf-protection
endif
OPT      := -O2 -g
FORTIFY  := -D_FORTIFY_SOURCE=2
LDHARDEN := -pie -Wl,-z,relro,-z,now,-z,noexecstack -Wl,--as-needed
ifeq ($(SAN),asan)
  OPT     := -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all
  FORTIFY :=
endif
ifeq ($(SAN),tsan)
  OPT     := -O1 -g -fno-omit-frame-pointer -fsanitize=thread
  FORTIFY :=
endif
# Results must not depend on the compiler's contractions: fused multiply-adds are written where they are meant.
CSTD     := -std=c11 -D_GNU_SOURCE -ffp-contract=off
CPPFLAGS += -I. -I$(BUILD)/gen -DSKF_VERSION='"$(VERSION)"'
GUARD    := -include base/banned.h
CFLAGS_ALL = $(CSTD) $(OPT) $(WARN) $(HARDEN) $(FORTIFY) $(CPPFLAGS) $(CFLAGS)

# ---- folders ----------------------------------------------------------------------------------------------------------
FOLDERS := base proto model delta trust store fetch wire http kernels runtime gateway distributor agent cli

DEPS_base        :=
DEPS_proto       := base
DEPS_model       := base
DEPS_delta       := model base
DEPS_trust       := proto base
DEPS_store       := base
DEPS_fetch       := base
DEPS_wire        := proto base
DEPS_http        := base
DEPS_kernels     := model base
DEPS_runtime     := kernels store model proto base
DEPS_gateway     := http proto base
DEPS_distributor := delta trust store fetch wire http model proto base
DEPS_agent       := delta trust store fetch wire http model proto base
DEPS_cli         := gateway distributor agent runtime kernels delta trust store fetch wire http model proto base

# Third-party libraries, each used by one folder (style: third-party types stay in one folder each).
PKG_base    := jansson libcrypto
PKG_proto   := libprotobuf-c
PKG_delta   := libzstd liblzma
PKG_trust   := libsodium
PKG_store   := lmdb
PKG_fetch   := libcurl
PKG_wire    := grpc
PKG_http    := libmicrohttpd
LIB_trust   := -lmbedtls -lmbedx509 -lmbedcrypto
LIB_base    := -lpthread -lm
LIB_kernels := -ldl

pkg_libs = $(shell $(PKG_ENV) pkg-config --libs $(1) 2>/dev/null)
$(foreach f,$(FOLDERS),$(if $(PKG_$(f)),$(eval LIBS_$(f) = $$(or $$(C_LIBS_$(f)),$$(eval C_LIBS_$(f) := $$(call pkg_libs,$(PKG_$(f))))$$(C_LIBS_$(f))))))

# A program or test of folder F links F, what F may include, and their libraries; only what is used is kept.
link_dirs = $(1) $(DEPS_$(1))
link_of   = $(foreach d,$(call link_dirs,$(1)),$(BUILD)/lib/lib$(d).a)
libs_of   = $(foreach d,$(call link_dirs,$(1)),$(LIBS_$(d)) $(LIB_$(d)))

find_c    = $(filter-out %/main.c,$(sort $(wildcard $(1)/*.c $(1)/*/*.c)))
PROTOS   := $(sort $(wildcard proto/*.proto))
GEN_C    := $(patsubst proto/%.proto,$(BUILD)/gen/proto/%.pb-c.c,$(PROTOS))
GEN_H    := $(GEN_C:.c=.h)

$(foreach f,$(FOLDERS),$(eval SRC_$(f) := $(call find_c,$(f))))
$(foreach f,$(FOLDERS),$(eval OBJ_$(f) := $(patsubst %.c,$(BUILD)/obj/%.o,$(SRC_$(f)))))
OBJ_proto += $(patsubst $(BUILD)/gen/%.c,$(BUILD)/obj/gen/%.o,$(GEN_C))

# program -> folder of its main.c
PROGRAMS           := skiff skiff-fleet skiffd skiff-agent skiff-gateway skiff-worker
MAIN_skiff         := cli
MAIN_skiff-fleet   := cli/fleet
MAIN_skiffd        := distributor
MAIN_skiff-agent   := agent
MAIN_skiff-gateway := gateway
MAIN_skiff-worker  := runtime
HAVE               := $(foreach p,$(PROGRAMS),$(if $(wildcard $(MAIN_$(p))/main.c),$(p)))

.PHONY: all
all: $(addprefix $(BUILD)/,$(HAVE))

main_folder = $(firstword $(subst /, ,$(MAIN_$(1))))
define program_rule
$(BUILD)/$(1): $(BUILD)/obj/$(MAIN_$(1))/main.o $(call link_of,$(call main_folder,$(1)))
	@echo "  LINK  $$@"
	$(Q)$$(CC) $$(OPT) $$(LDHARDEN) $$(LDFLAGS) -o $$@ $$(filter %.o,$$^) -Wl,--start-group $$(filter %.a,$$^) -Wl,--end-group $$(call libs_of,$(call main_folder,$(1)))
endef
$(foreach p,$(HAVE),$(eval $(call program_rule,$(p))))
$(BUILD)/skiff: | $(BUILD)/skiff-fleet # which it starts

define lib_rule
$(BUILD)/lib/lib$(1).a: $(OBJ_$(1))
	@mkdir -p $$(@D)
	$(Q)rm -f $$@ && $$(AR) rcsD $$@ $$^
endef
$(foreach f,$(FOLDERS),$(eval $(call lib_rule,$(f))))

# A file named *_avx2.c, *_avx512.c, *_vbmi2.c, *_amx.c or *_neon.c is compiled for that instruction set, on that machine only.
isa_flags_x86_64  = $(if $(filter %_avx2,$(1)),-mavx2 -mfma -mf16c)$(if $(filter %_vbmi2,$(1)),-mavx512vbmi2 )$(if $(filter %_avx512 %_vbmi2,$(1)),-mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni -mavx2 -mfma -mf16c)
isa_flags_aarch64 = $(if $(filter %_neon,$(1)),-march=armv8.2-a+dotprod)
isa_flags = $(call isa_flags_$(MACHINE),$(1))
$(BUILD)/obj/%.o: %.c | $(GEN_H) $(BUILD)/gen/verbs.inc
	@mkdir -p $(@D)
	@echo "  CC    $<"
	$(Q)$(CC) $(CFLAGS_ALL) $(GUARD) $(call isa_flags,$*) -MMD -MP -c -o $@ $<

$(BUILD)/obj/gen/%.o: $(BUILD)/gen/%.c | $(GEN_H)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CSTD) $(OPT) $(HARDEN) $(FORTIFY) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/gen/proto/%.pb-c.c $(BUILD)/gen/proto/%.pb-c.h &: proto/%.proto
	@mkdir -p $(@D)
	@echo "  PROTO $<"
	$(Q)protoc-c -I. --c_out=$(BUILD)/gen $<

# The verbs of `skiff` are the files cli/verb_*.c, each with one function skf_verb_<name>(). Those that speak gRPC stand in a program of their
# own, skiff-fleet, which `skiff` starts for them: only that one takes the time to load gRPC's libraries.
VERBS := $(sort $(patsubst cli/verb_%.c,%,$(wildcard cli/verb_*.c)))
FLEET_VERBS := devices pin publish rollback rollout top unpin versions
$(BUILD)/gen/verbs.inc: $(wildcard cli/verb_*.c) Makefile
	@mkdir -p $(@D)
	$(Q){ for v in $(VERBS); do case " $(FLEET_VERBS) " in *" $$v "*) echo "SKF_FLEET_VERB($$v)";; *) echo "SKF_VERB($$v)";; esac; done; } > $@.new; cmp -s $@.new $@ && { rm $@.new; touch $@; } || mv $@.new $@
$(BUILD)/obj/cli/main.o $(BUILD)/obj/cli/fleet/main.o: $(BUILD)/gen/verbs.inc

# ---- tests ------------------------------------------------------------------------------------------------------------
# tests/unit/<folder>_<what>.c is a cmocka program of that folder; tests/kernels/*.c belong to kernels, tests/fault/<folder>_*.c
# likewise; tests/fuzz/<folder>_*.c are libFuzzer targets. They print TAP; tests/run.py counts it.
UNIT_SRC  := $(sort $(wildcard tests/unit/*.c tests/fault/*.c tests/kernels/*.c))
folder_of = $(if $(filter tests/kernels/%,$(1)),kernels,$(firstword $(subst _, ,$(basename $(notdir $(1))))))
UNIT_BIN  := $(patsubst tests/%.c,$(BUILD)/tests/%,$(UNIT_SRC))
TESTLIB   := $(sort $(wildcard tests/lib/*.c))
define unit_rule
$(patsubst tests/%.c,$(BUILD)/tests/%,$(1)): $(patsubst %.c,$(BUILD)/obj/%.o,$(1)) $(patsubst %.c,$(BUILD)/obj/%.o,$(TESTLIB)) $(call link_of,$(call folder_of,$(1)))
	@mkdir -p $$(@D)
	@echo "  TEST  $$@"
	$(Q)$$(CC) $$(OPT) $$(LDHARDEN) $$(LDFLAGS) -o $$@ $$(filter %.o,$$^) -Wl,--start-group $$(filter %.a,$$^) -Wl,--end-group $$(call libs_of,$(call folder_of,$(1))) -lcmocka
endef
$(foreach t,$(UNIT_SRC),$(eval $(call unit_rule,$(t))))

# Fuzz targets run in the test command too, with a plain driver; `make fuzz` gives them libFuzzer.
FUZZ_SRC  := $(sort $(wildcard tests/fuzz/*.c))
define fuzz_unit_rule
$(patsubst tests/%.c,$(BUILD)/tests/%,$(1)): $(patsubst %.c,$(BUILD)/obj/%.o,$(1)) $(BUILD)/obj/tests/fuzz/driver/standalone.o $(call link_of,$(call folder_of,$(1)))
	@mkdir -p $$(@D)
	@echo "  TEST  $$@"
	$(Q)$$(CC) $$(OPT) $$(LDHARDEN) $$(LDFLAGS) -o $$@ $$(filter %.o,$$^) -Wl,--start-group $$(filter %.a,$$^) -Wl,--end-group $$(call libs_of,$(call folder_of,$(1)))
endef
$(foreach t,$(FUZZ_SRC),$(eval $(call fuzz_unit_rule,$(t))))
UNIT_BIN  += $(patsubst tests/%.c,$(BUILD)/tests/%,$(FUZZ_SRC))
# A fuzz target's entry point has no header of ours.
$(BUILD)/obj/tests/fuzz/%.o: CFLAGS += -Wno-missing-prototypes

.PHONY: unit-bins
unit-bins: $(UNIT_BIN)

# make unit-delta: build and run the unit tests of one folder
unit-%:
	$(Q)$(MAKE) --no-print-directory $(filter $(BUILD)/tests/unit/$*_% $(BUILD)/tests/fault/$*_% $(BUILD)/tests/fuzz/$*_%,$(UNIT_BIN)) $(if $(filter kernels,$*),$(filter $(BUILD)/tests/kernels/%,$(UNIT_BIN)))
	$(Q)$(PYTHON) tests/run.py --build $(BUILD) --only $(if $(filter kernels,$*),kernels,$*)

.PHONY: deps venv models check check-quick
deps: ## install the Debian packages that skiff needs (root or sudo; nothing when they are there)
	$(Q)tools/deps.sh $(if $(filter arm64,$(ARCH)),arm64)

check: ## the whole test command: builds and runs every test
	$(Q)$(MAKE) --no-print-directory deps
	$(Q)$(MAKE) --no-print-directory check-built
.PHONY: check-built
check-built: all unit-bins
	$(Q)$(PYTHON) tests/run.py --build $(BUILD)
check-quick: all unit-bins ## unit and command-line tests only
	$(Q)$(PYTHON) tests/run.py --build $(BUILD) --quick
.PHONY: check-unit
check-unit: all unit-bins ## unit tests only; with ARCH=arm64 they run under qemu-user
	$(Q)$(PYTHON) tests/run.py --build $(BUILD) --unit $(WRAP) $(if $(WRAP),--slow 10)

.PHONY: demo bench asan tsan fuzz install clean help format
demo: ## a fleet on this machine: publish, ask, update under load, pin back
	$(Q)$(MAKE) --no-print-directory deps
	$(Q)$(MAKE) --no-print-directory all
	$(Q)$(PYTHON) tools/demo.py --build $(BUILD)
bench: all ## benchmarks against peers; results go to bench/results/ (make bench-delta: one of them)
	$(Q)$(PYTHON) bench/run.py --build $(BUILD)
bench-%: all
	$(Q)$(PYTHON) bench/run.py --build $(BUILD) $*
.PHONY: check-transformers
check-transformers: all unit-bins ## every architecture's logits against transformers alive (installs torch: some 3 GB, in build/)
	$(Q)test -x $(BUILD)/transformers/bin/python || $(PYTHON) -m venv $(BUILD)/transformers
	$(Q)$(BUILD)/transformers/bin/python -m pip install --quiet --disable-pip-version-check -r tests/requirements-transformers.txt
	$(Q)$(BUILD)/transformers/bin/python tools/check_transformers.py --build $(BUILD)
.PHONY: valgrind soak
valgrind: unit-bins ## unit tests of store and delta under valgrind
	$(Q)$(PYTHON) tests/run.py --build $(BUILD) --unit --match unit/store,unit/delta,fault/store_full,fault/delta --wrap 'valgrind -q --error-exitcode=9 --leak-check=full --errors-for-leak-kinds=definite' --slow 20
soak: all ## a hundred swaps under load: no request lost, no growth (about ten minutes)
	$(Q)SKF_SWAPS=100 $(PYTHON) tests/run.py --build $(BUILD) --match e2e/swaps --slow 4 --verbose
asan: ## the whole test command under AddressSanitizer and UBSan (build-asan/)
	$(Q)$(MAKE) --no-print-directory SAN=asan all unit-bins
	$(Q)ASAN_OPTIONS=detect_leaks=1:abort_on_error=0 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 $(PYTHON) tests/run.py --build build-asan --slow 4
tsan: ## the unit tests under ThreadSanitizer (build-tsan/)
	$(Q)$(MAKE) --no-print-directory SAN=tsan all unit-bins
	$(Q)TSAN_OPTIONS=ignore_noninstrumented_modules=1 $(PYTHON) tests/run.py --build build-tsan --quick --slow 8

FUZZ_TIME ?= 60
fuzz: ## every parser's fuzz target for FUZZ_TIME seconds each (clang, build-fuzz/)
	$(Q)$(MAKE) --no-print-directory CC=clang BUILD=build-fuzz OPT='-O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined,fuzzer-no-link -fno-sanitize-recover=all' FORTIFY= fuzz-bins
	$(Q)tests/fuzz/run.sh build-fuzz/fuzz $(FUZZ_TIME)
define fuzz_rule
$(BUILD)/fuzz/$(basename $(notdir $(1))): $(patsubst %.c,$(BUILD)/obj/%.o,$(1)) $(call link_of,$(call folder_of,$(1)))
	@mkdir -p $$(@D)
	$(Q)$$(CC) $$(OPT) -fsanitize=fuzzer $$(LDFLAGS) -o $$@ $$(filter %.o,$$^) -Wl,--start-group $$(filter %.a,$$^) -Wl,--end-group $$(call libs_of,$(call folder_of,$(1)))
endef
$(foreach t,$(FUZZ_SRC),$(eval $(call fuzz_rule,$(t))))
.PHONY: fuzz-bins
fuzz-bins: $(patsubst tests/fuzz/%.c,$(BUILD)/fuzz/%,$(FUZZ_SRC))

install: all ## install programs and man pages under PREFIX (default /usr/local; DESTDIR honoured)
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/man/man1
	install -m 755 $(addprefix $(BUILD)/,$(HAVE)) $(DESTDIR)$(PREFIX)/bin
	install -m 644 $(wildcard docs/man/*.1) $(DESTDIR)$(PREFIX)/share/man/man1
format: ## clang-format every source
	clang-format -i $(shell git ls-files '*.c' '*.h')
clean: ## remove everything built
	rm -rf build build-asan build-tsan build-fuzz build-arm64
help: ## this list
	$(Q)grep -hE '^[a-z-]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/:.*## /\t/' | expand -t 14
	$(Q)echo "variables: ARCH=arm64 (cross build), CC=clang, SAN=asan|tsan, BUILD=DIR, V=1, PREFIX, DESTDIR"

-include $(shell find $(BUILD)/obj -name '*.d' 2>/dev/null)
