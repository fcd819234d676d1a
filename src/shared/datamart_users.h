/*-------------------------------------------------------------------------
 *
 * datamart_users.h
 *		Types and limits that more than one module of the extension speaks of.
 *
 *		Nothing here has behaviour, and nothing here knows SPI, shared memory
 *		or background workers.  "Datamart user" is a row of the warehouse's
 *		users table; "role" is a PostgreSQL role.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DATAMART_USERS_H
#define DATAMART_USERS_H

#include "postgres.h"

#include "datatype/timestamp.h"

#define DMU_EXTENSION_NAME "datamart_users"

/*
 * Largest queue of one cycle, in datamart users: 16 bytes each, so 160 MB of
 * shared memory at the most.
 */
#define DMU_MAX_USERS 10000000

/* Most workers of one cycle; max_worker_processes is the real limit. */
#define DMU_MAX_WORKERS 1024

/* Room for a quoted and schema-qualified name: every byte may be a quote. */
#define DMU_QUALIFIED_NAME_LEN (2 * (2 * NAMEDATALEN + 2))

/* The six levels of the prioritisation, the most urgent first. */
typedef enum DmuPriority
{
	DMU_CRITICAL,
	DMU_HIGH,
	DMU_MEDIUM,
	DMU_HISTORICAL,
	DMU_LOW,
	DMU_LOWEST
} DmuPriority;

#define DMU_NPRIORITIES 6

/* What became of one datamart user that a worker claimed. */
typedef enum DmuOutcome
{
	DMU_PROCESSED,				/* refreshed, flag cleared, committed */
	DMU_FAILED,					/* rolled back, under back-off */
	DMU_SKIPPED,				/* was no longer modified */
	DMU_DEFERRED				/* kept colliding with the ETL, stays modified */
} DmuOutcome;

#define DMU_NOUTCOMES 4

/* How a cycle stands or ended; see dmu_status_name(). */
typedef enum DmuStatus
{
	DMU_STATUS_RUNNING,
	DMU_STATUS_COMPLETED,
	DMU_STATUS_TIME_LIMIT,
	DMU_STATUS_CANCELLED,
	DMU_STATUS_FAILED,
	DMU_STATUS_ABORTED
} DmuStatus;

/* Counts and times of one priority, or of all of them, in one cycle. */
typedef struct DmuTally
{
	int64		outcomes[DMU_NOUTCOMES];	/* datamart users, by DmuOutcome */
	int64		total_usec;		/* time spent on them, microseconds */
	int64		max_usec;		/* the longest one, microseconds */
} DmuTally;

/* One cycle as its caller and the history see it. */
typedef struct DmuCycleResult
{
	int64		cycle_id;
	DmuStatus	status;
	int64		backlog;		/* modified datamart users before the cycle */
	int32		found;			/* datamart users in the queue */
	int32		workers;		/* processes that worked, the coordinator too */
	TimestampTz started_at;
	TimestampTz finished_at;
	DmuTally	total;
} DmuCycleResult;

/*
 * An error on its way from one process to another or into a table.  Texts
 * that are longer are cut, at a character boundary.
 */
#define DMU_ERROR_TEXT_LEN 1024

typedef struct DmuError
{
	int			sqlerrcode;		/* 0 = no error */
	char		message[DMU_ERROR_TEXT_LEN];
	char		detail[DMU_ERROR_TEXT_LEN];
	char		hint[DMU_ERROR_TEXT_LEN];
	char		context[DMU_ERROR_TEXT_LEN];
} DmuError;

/* Constant strings; the CHECK constraints of the tables have the same. */
extern const char *dmu_priority_name(DmuPriority priority);
extern const char *dmu_outcome_name(DmuOutcome outcome);
extern const char *dmu_status_name(DmuStatus status);

/* Raises an error for a word that dmu_status_name() does not return. */
extern DmuStatus dmu_status_of_name(const char *name);

#endif							/* DATAMART_USERS_H */
