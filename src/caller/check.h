/*-------------------------------------------------------------------------
 *
 * check.h
 *		The doctor: what an examination is given, and what it finds.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_CHECK_H
#define DMU_CHECK_H

#include "datamart_users.h"
#include "warehouse.h"

/*
 * One call of datamart_users_check().  Examinations run in a fixed order; what
 * one of them learns, the later ones use.  All memory is of "context", which
 * the executor resets.
 */
typedef struct DmuDoctor
{
	MemoryContext context;
	Oid			schema;			/* of the extension */
	Oid			role;			/* asked about; InvalidOid: there is none */
	const char *role_name;
	int			lock_timeout;	/* the session's, not the doctor's own */

	/* An Oid in it is invalid where its examination found an error. */
	DmuWarehouse warehouse;

	/* By the examination of the facts index. */
	bool		has_facts_index;	/* on the table, or on a partition */
	bool		facts_index_attached;	/* valid on the table itself */
	bool		facts_partitioned;
	bool		has_foreign_partition;
	int			npartitions;	/* that are tables */
	List	   *partitions_without; /* names, qualified */
	char	   *facts_index_statements; /* NULL: none needed or possible */

	/* By the examination of the last cycle. */
	bool		only_failures;	/* all of the last cycle's failed */
} DmuDoctor;

/*
 * What an examination found; it begins as "ok" without a hint.  A hint is SQL
 * to paste, or a comment.
 */
typedef struct DmuFinding
{
	const char *status;			/* "ok", "warning" or "error" */
	char	   *detail;
	char	   *hint;			/* or NULL */
	int			sqlerrcode;		/* of the error that was raised, 0 = none */
} DmuFinding;

/*
 * An examination; it fills in the finding.  Whatever error it raises becomes
 * the finding.  May write nothing, in its transaction or elsewhere.
 */
typedef void (*DmuExamination) (DmuDoctor *doctor, DmuFinding *finding);

/*
 * In check_warehouse.c; "advise" adds to the hint of the examination before it.
 */
extern void dmu_check_facts_table(DmuDoctor *doctor, DmuFinding *finding);
extern void dmu_check_users_table(DmuDoctor *doctor, DmuFinding *finding);
extern void dmu_check_procedure(DmuDoctor *doctor, DmuFinding *finding);
extern void dmu_advise_facts_table(DmuDoctor *doctor, DmuFinding *finding);
extern void dmu_advise_users_table(DmuDoctor *doctor, DmuFinding *finding);

/* The schema that the setting "procedure" names, InvalidOid if it names none. */
extern Oid	dmu_check_procedure_schema(void);

/* In check_indexes.c and check_statistics.c, as the caller. */
extern void dmu_check_facts_index(DmuDoctor *doctor, DmuFinding *finding);
extern void dmu_check_facts_partitions(DmuDoctor *doctor, DmuFinding *finding);
extern void dmu_check_users_index(DmuDoctor *doctor, DmuFinding *finding);
extern void dmu_check_flag_index(DmuDoctor *doctor, DmuFinding *finding);
extern void dmu_check_statistics(DmuDoctor *doctor, DmuFinding *finding);

/* In check_triggers.c and check_replication.c, as the caller. */
extern void dmu_check_triggers(DmuDoctor *doctor, DmuFinding *finding);
extern void dmu_check_publications(DmuDoctor *doctor, DmuFinding *finding);

/* In check_server.c: what the server has for a cycle. */
extern void dmu_check_worker_slots(DmuDoctor *doctor, DmuFinding *finding);
extern void dmu_check_worker_settings(DmuDoctor *doctor, DmuFinding *finding);

/* In check_settings.c. */
extern void dmu_check_settings(DmuDoctor *doctor, DmuFinding *finding);

/*
 * The statement that sets it to that value, a literal, in this session, with
 * the one for later sessions behind it as a comment.
 */
extern char *dmu_check_set(const DmuDoctor *doctor, const char *name,
						   const char *value);

/* A setting as a worker would have it: worker_settings over the session's. */
extern char *dmu_check_worker_value(const char *name);

/* In check_processes.c: what a process of a cycle meets. */
extern void dmu_check_connections(DmuDoctor *doctor, DmuFinding *finding);
extern void dmu_check_timeouts(DmuDoctor *doctor, DmuFinding *finding);
extern void dmu_check_service(DmuDoctor *doctor, DmuFinding *finding);

/* In check_history.c: what cycles have left behind, read as the owner. */
extern void dmu_check_last_cycle(DmuDoctor *doctor, DmuFinding *finding);
extern void dmu_check_locks(DmuDoctor *doctor, DmuFinding *finding);
extern void dmu_check_failures(DmuDoctor *doctor, DmuFinding *finding);
extern void dmu_check_contention(DmuDoctor *doctor, DmuFinding *finding);
extern void dmu_check_history(DmuDoctor *doctor, DmuFinding *finding);

#endif							/* DMU_CHECK_H */
