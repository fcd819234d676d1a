/*-------------------------------------------------------------------------
 *
 * flag.c
 *		The flag of a datamart user: whether it is set, and how it is cleared.
 *
 *		A table may do other things than it is told: triggers and rules may
 *		keep the flag, or set it again, and the datamart user would be processed
 *		in every cycle for ever.  So where there are any, the row is looked at
 *		once more when they have run.  A table without them pays nothing.
 *
 *		This file knows no procedure, no attempts and no queue.
 *
 *-------------------------------------------------------------------------
 */
#include "flag.h"

#include "access/relation.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "parser/parsetree.h"
#include "prepared.h"
#include "rewrite/rewriteHandler.h"
#include "storage/proc.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/rel.h"

/*
 * How long we wait for a row lock of the users table, milliseconds.  A
 * transaction that holds one has usually updated the row, and its commit will
 * raise 40001 however long we wait; meanwhile others could be refreshed.
 */
#define DMU_LOCK_WAIT 1000

struct DmuFlag
{
	const DmuWarehouse *warehouse;
	SPIPlanPtr	look;
	SPIPlanPtr	lock;			/* looks, and locks the row */
	SPIPlanPtr	clear;
	SPIPlanPtr	clear_returning;	/* returns the flag; NULL until needed */
};

/* True if the statement just executed returned a row with a true flag. */
static bool
is_set_in_result(void)
{
	bool		modified = false;

	for (uint64 i = 0; i < SPI_processed && !modified; i++)
	{
		bool		isnull;
		Datum		value = SPI_getbinval(SPI_tuptable->vals[i],
										  SPI_tuptable->tupdesc, 1, &isnull);

		modified = !isnull && DatumGetBool(value);
	}
	SPI_freetuptable(SPI_tuptable);
	return modified;
}

/*
 * From here to AtEOXact_GUC() with its result, no lock is waited for longer
 * than DMU_LOCK_WAIT; the caller may have asked for less.
 */
static int
begin_short_waits(void)
{
	int			guc_level = NewGUCNestLevel();

	if (LockTimeout == 0 || LockTimeout > DMU_LOCK_WAIT)
		(void) set_config_option("lock_timeout", CppAsString2(DMU_LOCK_WAIT),
								 PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
	return guc_level;
}

/* What besides our statement decides over the flag. */
typedef enum UsersForm
{
	USERS_PLAIN,				/* nothing */
	USERS_TRIGGERS,				/* triggers of a table, or of its partitions */
	USERS_INDIRECT				/* rules, a view, another server */
} UsersForm;

/*
 * Takes the lock of our UPDATE, with which that of whoever adds a trigger or a
 * rule conflicts; so the answer is final, but for what we ourselves do.
 */
static UsersForm
users_form(const DmuFlag *flag)
{
	Relation	users = relation_open(flag->warehouse->users, RowExclusiveLock);
	char		kind = users->rd_rel->relkind;
	UsersForm	form = USERS_PLAIN;

	if (users->rd_rules != NULL ||
		(kind != RELKIND_RELATION && kind != RELKIND_PARTITIONED_TABLE))
		form = USERS_INDIRECT;
	else if (kind == RELKIND_PARTITIONED_TABLE || users->rd_rel->relhassubclass)
		form = USERS_TRIGGERS;
	else if (users->trigdesc != NULL)
	{
		/* Those of foreign keys change nothing. */
		for (int i = 0; i < users->trigdesc->numtriggers; i++)
		{
			if (!users->trigdesc->triggers[i].tgisinternal)
				form = USERS_TRIGGERS;
		}
	}
	relation_close(users, NoLock);
	return form;
}

static void
refuse_not_cleared(const DmuFlag *flag, int64 dimension_user_id,
				   const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("flag \"%s\" of datamart user " INT64_FORMAT " could not be cleared",
					flag->warehouse->users_flag.name, dimension_user_id),
			 errdetail_internal("%s", detail),
			 errhint("Look for a row-level security policy, a trigger or a rule on the table, or whether the procedure deletes the row.")));
}

static void
refuse_still_set(const DmuFlag *flag, int64 dimension_user_id)
{
	refuse_not_cleared(flag, dimension_user_id,
					   psprintf(_("It is still set, or set again, after the update of %s."),
								flag->warehouse->users_name));
}

static void
refuse_no_row(const DmuFlag *flag, int64 dimension_user_id)
{
	refuse_not_cleared(flag, dimension_user_id,
					   psprintf(_("The update of %s affected no row."),
								flag->warehouse->users_name));
}

/*
 * Not prepared with the others: where a rule stands in for the update, it
 * cannot return anything.
 */
static SPIPlanPtr
clear_returning(DmuFlag *flag)
{
	const DmuWarehouse *warehouse = flag->warehouse;

	if (flag->clear_returning == NULL)
		flag->clear_returning =
			dmu_prepared_make(psprintf("UPDATE %s SET %s = FALSE"
									   " WHERE %s OPERATOR(pg_catalog.=) $1 RETURNING %s",
									   warehouse->users_name,
									   warehouse->users_flag.quoted,
									   warehouse->users_key.quoted,
									   warehouse->users_flag.quoted), INT8OID);
	return flag->clear_returning;
}

/*
 * The operator is qualified because these run with the caller's search_path, as
 * the procedure must.
 */
DmuFlag    *
dmu_flag_prepare(const DmuWarehouse *warehouse)
{
	DmuFlag    *flag = MemoryContextAllocZero(TopMemoryContext, sizeof(DmuFlag));
	const char *column = warehouse->users_flag.quoted;
	const char *key = warehouse->users_key.quoted;

	flag->warehouse = warehouse;
	flag->look =
		dmu_prepared_make(psprintf("SELECT %s FROM %s WHERE %s OPERATOR(pg_catalog.=) $1",
								   column, warehouse->users_name, key), INT8OID);
	flag->lock =
		dmu_prepared_make(psprintf("SELECT %s FROM %s WHERE %s OPERATOR(pg_catalog.=) $1"
								   " FOR NO KEY UPDATE",
								   column, warehouse->users_name, key), INT8OID);
	flag->clear =
		dmu_prepared_make(psprintf("UPDATE %s SET %s = FALSE"
								   " WHERE %s OPERATOR(pg_catalog.=) $1",
								   warehouse->users_name, column, key), INT8OID);
	return flag;
}

void
dmu_flag_free(DmuFlag *flag)
{
	SPI_freeplan(flag->look);
	SPI_freeplan(flag->lock);
	SPI_freeplan(flag->clear);
	if (flag->clear_returning != NULL)
		SPI_freeplan(flag->clear_returning);
	pfree(flag);
}

bool
dmu_flag_is_set(DmuFlag *flag, int64 dimension_user_id)
{
	dmu_prepared_run(flag->look, Int64GetDatum(dimension_user_id),
					 SPI_OK_SELECT);
	return is_set_in_result();
}

/* True if a rule has something else done in the place of an update. */
static bool
update_is_replaced(Relation relation)
{
	for (int i = 0; relation->rd_rules != NULL && i < relation->rd_rules->numLocks; i++)
	{
		if (relation->rd_rules->rules[i]->event == CMD_UPDATE &&
			relation->rd_rules->rules[i]->isInstead)
			return true;
	}
	return false;
}

/* The only relation that an updatable view selects from, or InvalidOid. */
static Oid
relation_below(Relation view)
{
	Query	   *query = get_view_query(view);
	List	   *from = query->jointree->fromlist;
	RangeTblEntry *entry;

	if (list_length(from) != 1 || !IsA(linitial(from), RangeTblRef))
		return InvalidOid;
	entry = rt_fetch(linitial_node(RangeTblRef, from)->rtindex, query->rtable);
	return entry->rtekind == RTE_RELATION ? entry->relid : InvalidOid;
}

/*
 * True if FOR NO KEY UPDATE locks the row that our UPDATE will update.  Where
 * a trigger or a rule does the update, only that knows which row it is; and
 * what a view joins, groups or unites, the server refuses to lock, or locks in
 * part, or does not lock without a word.
 */
static bool
locks_what_it_updates(Oid relid)
{
	Relation	relation;
	bool		direct;
	Oid			below = InvalidOid;
	bool		is_view;

	check_stack_depth();
	relation = relation_open(relid, AccessShareLock);
	is_view = relation->rd_rel->relkind == RELKIND_VIEW;
	direct = !update_is_replaced(relation) &&
		!(is_view && relation->trigdesc != NULL &&
		  relation->trigdesc->trig_update_instead_row);
	if (direct && is_view)
		below = relation_below(relation);
	relation_close(relation, NoLock);

	if (!direct || !is_view)
		return direct;
	return OidIsValid(below) && locks_what_it_updates(below);
}

bool
dmu_flag_lock(DmuFlag *flag, int64 dimension_user_id)
{
	int			guc_level;

	if (!locks_what_it_updates(flag->warehouse->users))
		return dmu_flag_is_set(flag, dimension_user_id);

	guc_level = begin_short_waits();
	dmu_prepared_run(flag->lock, Int64GetDatum(dimension_user_id),
					 SPI_OK_SELECT);
	AtEOXact_GUC(false, guc_level);
	return is_set_in_result();
}

/*
 * Where a trigger moves the row to another key, the row that the update
 * returns is all we get to see of it.
 */
static DmuFlagUpdate
update_flag(DmuFlag *flag, int64 dimension_user_id)
{
	Datum		argument = Int64GetDatum(dimension_user_id);
	UsersForm	form = users_form(flag);
	DmuFlagUpdate update = {.plain = (form == USERS_PLAIN)};
	int			result;

	result = SPI_execute_plan(form == USERS_TRIGGERS ?
							  clear_returning(flag) : flag->clear,
							  &argument, NULL, false, 0);
	if (result < 0)
		elog(ERROR, "could not clear the flag of a datamart user: %s",
			 SPI_result_code_string(result));
	update.counted = (result == SPI_OK_UPDATE ||
					  result == SPI_OK_UPDATE_RETURNING);
	update.affected = SPI_processed;
	if (result == SPI_OK_UPDATE_RETURNING && is_set_in_result())
		refuse_still_set(flag, dimension_user_id);
	return update;
}

DmuFlagUpdate
dmu_flag_clear(DmuFlag *flag, int64 dimension_user_id,
			   DmuBeforeClear before_clear)
{
	int			guc_level = begin_short_waits();
	DmuFlagUpdate update;

	/* It may wait, so before we have the row that the ETL wants. */
	if (before_clear != NULL)
		before_clear(dimension_user_id);
	update = update_flag(flag, dimension_user_id);
	AtEOXact_GUC(false, guc_level);
	return update;
}

/*
 * Fires them all; returns true if any wrote anything, wherever.  One that did
 * may have deferred others again.
 */
static bool
fire_deferred_triggers(void)
{
	ConstraintsSetStmt *all_immediate = makeNode(ConstraintsSetStmt);
	bool		written = false;
	CommandId	command;

	CommandCounterIncrement();
	do
	{
		CHECK_FOR_INTERRUPTS();
		command = GetCurrentCommandId(false);
		AfterTriggerSetState(all_immediate);
		CommandCounterIncrement();
		if (GetCurrentCommandId(false) == command)
			return written;
		written = true;
	} while (true);
}

/*
 * The update may have affected no row that it would count, and the row may be
 * out of sight since, as in a view of those that are modified.
 */
void
dmu_flag_verify(DmuFlag *flag, int64 dimension_user_id,
				const DmuFlagUpdate *update)
{
	bool		written = fire_deferred_triggers();
	bool		found = false;

	if (written || !update->counted || !update->plain)
	{
		found = dmu_prepared_run(flag->look, Int64GetDatum(dimension_user_id),
								 SPI_OK_SELECT) > 0;
		if (is_set_in_result())
			refuse_still_set(flag, dimension_user_id);
	}
	if (update->counted && update->affected == 0 && !found)
		refuse_no_row(flag, dimension_user_id);
}
