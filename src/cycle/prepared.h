/*-------------------------------------------------------------------------
 *
 * prepared.h
 *		Statements that a worker prepares once and runs for every datamart user.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_PREPARED_H
#define DMU_PREPARED_H

#include "postgres.h"

#include "executor/spi.h"

/*
 * Prepares a statement with one argument, for the life of the process.  Needs
 * an SPI connection; raises what is wrong with the statement.
 */
extern SPIPlanPtr dmu_prepared_make(const char *sql, Oid argtype);

/*
 * Runs it, and raises an error if SPI returns anything but "expected".
 * Returns the number of rows; SPI_tuptable has them.
 */
extern uint64 dmu_prepared_run(SPIPlanPtr plan, Datum argument, int expected);

#endif							/* DMU_PREPARED_H */
