EXTENSION = datamart_users
EXTVERSION = 1.0

# Where this file is: make may be called from another folder (VPATH).
here := $(patsubst %/,%,$(dir $(lastword $(MAKEFILE_LIST))))

# $(call stems,src/,.c): those files here, without folder and suffix.  What
# finds nothing looks in a wrong place, and must not pass for an empty list.
stems = $(or $(patsubst $(here)/$(1)%$(2),%,$(sort $(wildcard $(here)/$(1)*$(2)))),\
	$(error there is no $(here)/$(1)*$(2)))

MODULE_big = datamart_users
# The folders say where a file runs: in the backend that calls a function, in
# the processes of a cycle, or in either.
SRC_FOLDERS = src/caller src/cycle src/shared
OBJS := $(foreach folder,$(SRC_FOLDERS),$(patsubst %,$(folder)/%.o,$(call stems,$(folder)/,.c)))
PGFILEDESC = "datamart_users - refreshes modified datamart users, the most relevant first, in parallel"

# The script, one file a subject; a later one may speak of an earlier one.
SQL_PARTS = begin history failures cycle try queue progress service metrics compare check report end
DATA_built = $(EXTENSION)--$(EXTVERSION).sql

# Beyond the server's own flags; its headers do not name all parameters unused.
PG_CFLAGS = -Wall -Wextra -Wno-unused-parameter

# What describes the shared memory of a cycle: processes whose libraries were
# built from others must not share it.
LAYOUT_HEADERS = datamart_users estimate profile request queue
LAYOUT := $(shell cat $(LAYOUT_HEADERS:%=$(here)/src/shared/%.h) | cksum | cut -d ' ' -f 1)
PG_CPPFLAGS = $(SRC_FOLDERS:%=-I$(here)/%) \
	-DDMU_LAYOUT=$(LAYOUT) -DDMU_EXTENSION_VERSION='"$(EXTVERSION)"'

# Looked for when tests run only: a package may come without them.
REGRESS = $(call stems,test/sql/,.sql)
# The tester would prefer a file of ours in sql/ to a test of the same name.
REGRESS_OPTS = --inputdir=$(here)/test --outputdir=output_regress
ISOLATION = $(call stems,test/isolation/specs/,.spec)
ISOLATION_OPTS = --inputdir=$(here)/test/isolation
TAP_TESTS = 1
PROVE_TESTS = test/t/*.pl

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

# PGXS looks for everything in the folder of the sources, so that what was
# built there would pass for built here.
srcdir := $(srcdir)
override VPATH :=
vpath %.c $(here)
vpath %.control $(here)

$(OBJS) $(OBJS:.o=.bc): $(wildcard $(here)/src/*/*.h) | $(SRC_FOLDERS)
$(SRC_FOLDERS):
	mkdir -p $@

$(DATA_built): $(SQL_PARTS:%=$(here)/sql/%.sql)
	cat $^ > $@

#
# For those who change it; see CONTRIBUTING.md.
#
INDENT = pg_bsd_indent -bad -bap -bbb -bc -bl -cli1 -cp33 -cdb -nce -d0 -di12 -nfc1 -i4 -l79 \
	-lp -lpl -nip -npro -sac -tpg -ts4 -U$(here)/src/typedefs.list
SOURCES = $(wildcard $(here)/src/*/*.c $(here)/src/*/*.h)
SCRIPTS = $(here)/.ci/run $(wildcard $(here)/test/*.sh $(here)/bench/*.sh)

# With the options of pgindent.  It leaves a backup where it works in place.
format:
	@for file in $(SOURCES); do \
		$(INDENT) $$file $$file.new && mv $$file.new $$file || exit 1; \
	done

check-format:
	@status=0; formatted=$$(mktemp); \
	for file in $(SOURCES); do \
		$(INDENT) $$file $$formatted && diff -u $$file $$formatted || status=1; \
	done; rm -f $$formatted; exit $$status

# What is switched off, and why, is in .clang-tidy.
lint:
	clang-tidy --quiet --warnings-as-errors='*' $(filter %.c,$(SOURCES)) -- $(CPPFLAGS) -std=gnu11
	shellcheck -x $(SCRIPTS)

# Into doc/reference.md, with a server of its own.
reference:
	bash $(here)/test/reference.sh

demo:
	bash $(here)/test/demo.sh

dist:
	git -C $(here) archive --format=zip --prefix=$(EXTENSION)-$(EXTVERSION).0/ \
		-o "$(CURDIR)/$(EXTENSION)-$(EXTVERSION).0.zip" HEAD

# Into coverage/, with the tests' own server; needs lcov.
coverage:
	bash $(here)/test/coverage.sh

.PHONY: format check-format lint reference demo dist coverage
