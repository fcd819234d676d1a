EXTENSION = datamart_users
EXTVERSION = 1.0

MODULE_big = datamart_users
OBJS = $(patsubst %.c,%.o,$(wildcard src/*.c))
DATA = datamart_users--$(EXTVERSION).sql
PGFILEDESC = "datamart_users - refreshes modified datamart users, the most relevant first, in parallel"

# Beyond the server's own flags; its headers do not name all parameters unused.
PG_CFLAGS = -Wall -Wextra -Wno-unused-parameter

REGRESS = $(patsubst sql/%.sql,%,$(sort $(wildcard sql/*.sql)))
REGRESS_OPTS = --inputdir=.
ISOLATION = $(patsubst test/isolation/specs/%.spec,%,$(sort $(wildcard test/isolation/specs/*.spec)))
ISOLATION_OPTS = --inputdir=test/isolation
TAP_TESTS = 1
PROVE_TESTS = test/t/*.pl

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)
