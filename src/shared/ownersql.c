/*-------------------------------------------------------------------------
 *
 * ownersql.c
 *		SQL on the extension's own tables, in the name of their owner.
 *
 *		A caller may run cycles without any right on these tables, and must not
 *		be able to write them by himself.  So all SQL on them runs as their
 *		owner, with a search_path that holds nothing but pg_catalog, and under
 *		SECURITY_RESTRICTED_OPERATION, so that nothing it fires can change the
 *		session.  A statement does not run at all where one of its tables has a
 *		trigger, a rule or a policy that somebody has put there.
 *
 *		This file knows neither what the tables are for nor who writes them.
 *
 *-------------------------------------------------------------------------
 */
#include "ownersql.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_class.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_type.h"
#include "commands/dbcommands.h"
#include "commands/extension.h"
#include "commands/trigger.h"
#include "compat.h"
#include "datamart_users.h"
#include "executor/spi.h"
#include "extension.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "transaction.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

/* What the names of all our tables begin with. */
#define TABLE_PREFIX DMU_EXTENSION_NAME "_"

/* The extension, once dmu_owner_protect() has been called. */
static LOCKTAG extension_tag;
static bool extension_tag_set = false;

/*
 * The owner, and the schema; "newer" is in this memory context, or NULL, as in
 * DmuOwnerScope.
 */
static Oid
find_owner(Oid *extension, char **newer)
{
	char	   *version = NULL;
	Oid			schema = dmu_extension_schema(&version);
	Oid			table = InvalidOid;
	HeapTuple	tuple;
	Oid			owner;

	if (OidIsValid(schema))
		table = get_relname_relid("datamart_users_cycles", schema);
	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(table));
	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("extension \"%s\" is not installed in database \"%s\"",
						DMU_EXTENSION_NAME, get_database_name(MyDatabaseId)),
				 errhint("Run CREATE EXTENSION %s.", DMU_EXTENSION_NAME)));
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	dmu_extension_refuse_older(version);
	*extension = schema;
	*newer = dmu_extension_compare(version) > 0 ? version : NULL;
	if (*newer == NULL)
		pfree(version);

	/* Who was given the tables need not have been given the schema. */
	if (dmu_schema_aclcheck(schema, owner, ACL_USAGE) != ACLCHECK_OK)
	{
		const char *schema_name = quote_identifier(get_namespace_name(schema));

		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("the owner of the tables of extension \"%s\" may not look into its schema %s",
						DMU_EXTENSION_NAME, schema_name),
				 errhint("Run GRANT USAGE ON SCHEMA %s TO %s;", schema_name,
						 quote_identifier(GetUserNameFromId(owner, false)))));
	}
	return owner;
}

Oid
dmu_owner_role(void)
{
	Oid			schema;
	char	   *newer;
	Oid			owner = find_owner(&schema, &newer);

	if (newer != NULL)
		pfree(newer);
	return owner;
}

void
dmu_owner_enter(DmuOwnerScope *scope)
{
	Oid			owner = find_owner(&scope->schema_oid, &scope->newer);

	scope->schema = pstrdup(quote_identifier(get_namespace_name(scope->schema_oid)));
	GetUserIdAndSecContext(&scope->role, &scope->security_context);
	SetUserIdAndSecContext(owner,
						   scope->security_context |
						   SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_RESTRICTED_OPERATION);
	scope->guc_level = NewGUCNestLevel();
	(void) set_config_option("search_path", "pg_catalog, pg_temp",
							 PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	if (LockTimeout == 0 || LockTimeout > DMU_LOCK_WAIT)
		(void) set_config_option("lock_timeout", CppAsString2(DMU_LOCK_WAIT),
								 PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
	SPI_connect();
	scope->pushed_snapshot = !ActiveSnapshotSet();
	if (scope->pushed_snapshot)
		PushActiveSnapshot(GetTransactionSnapshot());
}

void
dmu_owner_leave(DmuOwnerScope *scope)
{
	if (scope->pushed_snapshot)
		PopActiveSnapshot();
	SPI_finish();
	AtEOXact_GUC(false, scope->guc_level);
	SetUserIdAndSecContext(scope->role, scope->security_context);
	pfree(scope->schema);
	if (scope->newer != NULL)
		pfree(scope->newer);
}

/* True if what an event would fire is not the server's own. */
static bool
has_foreign_code(Relation relation)
{
	const TriggerDesc *triggers = relation->trigdesc;

	if (relation->rd_rules != NULL ||
		check_enable_rls(RelationGetRelid(relation), InvalidOid, true) == RLS_ENABLED)
		return true;
	for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
	{
		const Trigger *trigger = &triggers->triggers[i];

		if (!trigger->tgisinternal &&
			trigger->tgenabled != TRIGGER_DISABLED)
			return true;
	}
	return false;
}

/*
 * Whatever fires on a table does so with the rights of our owner, and it takes
 * no more than a TRIGGER privilege to put it there.  The lock, which lasts
 * until the end of the transaction, keeps it from coming after the look; it is
 * the one that the statement needs anyway.
 */
static Relation
open_without_foreign_code(const DmuOwnerScope *scope, Oid table,
						  LOCKMODE lockmode, bool with_children)
{
	Relation	relation = table_open(table, lockmode);

	if (has_foreign_code(relation))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table %s.%s has a trigger, a rule or a forced row-level security policy",
						scope->schema, RelationGetRelationName(relation)),
				 errdetail("It would run with the rights of role \"%s\", which owns the extension's tables.",
						   GetUserNameFromId(GetUserId(), false)),
				 errhint("Drop or disable it, and see who has the privilege TRIGGER on the table.")));

	/* A cascading delete fires those of the tables that it goes on to. */
	for (int i = 0; with_children && relation->trigdesc != NULL &&
		 i < relation->trigdesc->numtriggers; i++)
	{
		const Trigger *trigger = &relation->trigdesc->triggers[i];
		Oid			child = trigger->tgconstrrelid;
		char	   *name;

		if (!OidIsValid(child) ||
			RI_FKey_trigger_type(trigger->tgfoid) != RI_TRIGGER_PK ||
			get_rel_namespace(child) != scope->schema_oid)
			continue;
		name = get_rel_name(child);
		if (name != NULL && strncmp(name, TABLE_PREFIX, strlen(TABLE_PREFIX)) == 0)
			table_close(open_without_foreign_code(scope, child, lockmode, false),
						NoLock);
	}
	return relation;
}

static Oid
find_table(const DmuOwnerScope *scope, const char *name)
{
	Oid			table = get_relname_relid(name, scope->schema_oid);

	if (!OidIsValid(table))
		elog(ERROR, "there is no table %s", name);
	return table;
}

/* The table that follows a %s in a statement of ours. */
static void
check_table(const DmuOwnerScope *scope, const char *mark, int expected)
{
	const char *name = mark + strlen("%s.");
	char	   *table_name = pnstrdup(name, strspn(name, "abcdefghijklmnopqrstuvwxyz_"));
	bool		reads = (expected == SPI_OK_SELECT);
	Oid			table = find_table(scope, table_name);

	/* What it shows is bound, and only its owner can change that. */
	if (reads && get_rel_relkind(table) == RELKIND_VIEW)
		return;
	table_close(open_without_foreign_code(scope, table,
										  reads ? AccessShareLock : RowExclusiveLock,
										  !reads),
				NoLock);
}

Relation
dmu_owner_open(const DmuOwnerScope *scope, const char *name)
{
	Relation	relation;
	AclResult	result;
	ErrorContextCallback explain = {.previous = error_context_stack,.callback = dmu_extension_explain_newer,.arg = scope->newer};

	if (scope->newer != NULL)
		error_context_stack = &explain;
	relation = open_without_foreign_code(scope, find_table(scope, name),
										 AccessShareLock, false);
	result = pg_class_aclcheck(RelationGetRelid(relation), GetUserId(), ACL_SELECT);
	if (result != ACLCHECK_OK)
		aclcheck_error(result, OBJECT_TABLE, name);
	if (!RELKIND_HAS_TABLE_AM(relation->rd_rel->relkind))
		elog(ERROR, "%s is no table", name);
	error_context_stack = explain.previous;
	return relation;
}

/* Rows go to "dest", or to SPI_tuptable if that is NULL. */
static void
execute(const DmuOwnerScope *scope, const char *format, bool read_only,
		int expected, int nparams, const DmuParam *params, DestReceiver *dest)
{
	StringInfoData sql;
	SPIExecuteOptions options = {
		.params = makeParamList(nparams),
		.read_only = read_only,
		.dest = dest
	};
	const char *rest = format;
	const char *mark;
	int			result;
	ErrorContextCallback explain = {.previous = error_context_stack,.callback = dmu_extension_explain_newer,.arg = scope->newer};

	if (scope->newer != NULL)
		error_context_stack = &explain;
	initStringInfo(&sql);
	while ((mark = strstr(rest, "%s")) != NULL)
	{
		/* LOCK TABLE fires nothing, and may have to do without waiting. */
		if (expected != SPI_OK_UTILITY)
			check_table(scope, mark, expected);
		appendBinaryStringInfo(&sql, rest, mark - rest);
		appendStringInfoString(&sql, scope->schema);
		rest = mark + 2;
	}
	appendStringInfoString(&sql, rest);

	for (int i = 0; i < nparams; i++)
	{
		options.params->params[i].ptype = params[i].type;
		options.params->params[i].value = params[i].value;
		options.params->params[i].isnull = params[i].isnull;
		options.params->params[i].pflags = PARAM_FLAG_CONST;
	}

	result = SPI_execute_extended(sql.data, &options);

	/* So SPI calls a query whose rows go to a receiver of ours. */
	if (dest != NULL && dest->mydest == DestNone && result == SPI_OK_UTILITY)
		result = SPI_OK_SELECT;
	if (result != expected)
		elog(ERROR, "unexpected result %s of \"%s\"",
			 SPI_result_code_string(result), sql.data);
	error_context_stack = explain.previous;
	pfree(options.params);
	pfree(sql.data);
}

void
dmu_owner_run(const DmuOwnerScope *scope, const char *format, int expected,
			  int nparams, const DmuParam *params)
{
	execute(scope, format, false, expected, nparams, params, NULL);
}

void
dmu_owner_read(const DmuOwnerScope *scope, const char *format, int nparams,
			   const DmuParam *params, DestReceiver *dest)
{
	execute(scope, format, false, SPI_OK_SELECT, nparams, params, dest);
}

void
dmu_owner_read_latest(const DmuOwnerScope *scope, const char *format,
					  int nparams, const DmuParam *params)
{
	/* A read-only execution uses the snapshot that is active. */
	PushActiveSnapshot(GetLatestSnapshot());
	execute(scope, format, true, SPI_OK_SELECT, nparams, params, NULL);
	PopActiveSnapshot();
}

Datum
dmu_owner_value(SPITupleTable *table, uint64 row, int column)
{
	bool		isnull;
	Datum		value = SPI_getbinval(table->vals[row], table->tupdesc,
									  column, &isnull);

	Assert(!isnull);
	return value;
}

/* LockReleaseSession() at the end of a process; see dmu_owner_protect(). */
static void
release_protection(int code, Datum arg)
{
	LockReleaseSession(DEFAULT_LOCKMETHOD);
}

bool
dmu_owner_is_protected(void)
{
	return extension_tag_set &&
		dmu_lock_held_by_me(&extension_tag, AccessShareLock);
}

bool
dmu_owner_is_wanted(void)
{
	return dmu_owner_is_protected() &&
		LockHasWaiters(&extension_tag, AccessShareLock, true);
}

bool
dmu_owner_try_protect(void)
{
	/*
	 * DROP EXTENSION locks the extension itself before it looks at its
	 * members.  A session-level lock outlives the transactions of a cycle,
	 * but is not given back by a process that ends well.
	 */
	SET_LOCKTAG_OBJECT(extension_tag, MyDatabaseId, ExtensionRelationId,
					   get_extension_oid(DMU_EXTENSION_NAME, true), 0);
	if (!extension_tag_set)
		before_shmem_exit(release_protection, (Datum) 0);
	extension_tag_set = true;
	if (dmu_owner_is_protected())
		return true;

	/*
	 * Never wait for it: whoever has locked the extension may wait for a
	 * process of ours, and those wait for each other on their latches.
	 */
	if (LockAcquire(&extension_tag, AccessShareLock, true, true) == LOCKACQUIRE_NOT_AVAIL)
		return false;
	AcceptInvalidationMessages();
	(void) dmu_owner_role();
	return true;
}

void
dmu_owner_protect(void)
{
	if (dmu_owner_try_protect())
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("extension \"%s\" is being dropped", DMU_EXTENSION_NAME),
			 errdetail("Another transaction has locked the extension, or waits for that."),
			 errhint("Try again when that transaction has ended.")));
}

void
dmu_owner_unprotect(void)
{
	release_protection(0, (Datum) 0);
}
