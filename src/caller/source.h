/*-------------------------------------------------------------------------
 *
 * source.h
 *		Rows that C code makes, for the views of the extension.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_SOURCE_H
#define DMU_SOURCE_H

#include "datamart_users.h"

/* Where the rows go; belongs to the scan that asks for them. */
typedef struct DmuRows DmuRows;

/*
 * Copies a row.  "values" and "nulls" have as many elements as the foreign
 * table has columns, which "ncolumns" is checked against.
 */
extern void dmu_source_put(DmuRows *rows, int ncolumns, Datum *values,
						   bool *nulls);

/*
 * Each puts all of its rows, with the rights of the current role: the views
 * datamart_users_progress, datamart_users_workers, datamart_users_backlog,
 * datamart_users_service.
 */
extern void dmu_progress_rows(DmuRows *rows);
extern void dmu_worker_rows(DmuRows *rows);
extern void dmu_backlog_rows(DmuRows *rows);
extern void dmu_service_rows(DmuRows *rows);

#endif							/* DMU_SOURCE_H */
