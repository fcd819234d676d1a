EXTENSION = datamart_users
EXTVERSION = 1.0

# Where this file is: make may be called from another folder (VPATH).
here := $(patsubst %/,%,$(dir $(lastword $(MAKEFILE_LIST))))

MODULE_big = datamart_users
OBJS = $(patsubst $(here)/%.c,%.o,$(wildcard $(here)/src/*.c))
PGFILEDESC = "datamart_users - refreshes modified datamart users, the most relevant first, in parallel"

# The script, one file a subject; a later one may speak of an earlier one.
SQL_PARTS = begin history failures cycle queue progress metrics check report
DATA_built = $(EXTENSION)--$(EXTVERSION).sql

# Beyond the server's own flags; its headers do not name all parameters unused.
PG_CFLAGS = -Wall -Wextra -Wno-unused-parameter

REGRESS = $(patsubst $(here)/test/sql/%.sql,%,$(sort $(wildcard $(here)/test/sql/*.sql)))
# The tester would prefer a file of ours in sql/ to a test of the same name.
REGRESS_OPTS = --inputdir=$(here)/test --outputdir=output_regress
ISOLATION = $(patsubst $(here)/test/isolation/specs/%.spec,%,$(sort $(wildcard $(here)/test/isolation/specs/*.spec)))
ISOLATION_OPTS = --inputdir=$(here)/test/isolation
TAP_TESTS = 1
PROVE_TESTS = test/t/*.pl

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

$(DATA_built): $(SQL_PARTS:%=sql/%.sql)
	cat $^ > $@
