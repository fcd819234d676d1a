/*-------------------------------------------------------------------------
 *
 * renew.c
 *		Settings that change while a service runs.
 *
 *		The state that its processes restore holds all settings of the session
 *		that started it, each with its source.  To bring it up to date, what
 *		came from ALTER ROLE and ALTER DATABASE is left out of it, the rest
 *		restored, the configuration files read, and what is stored now applied,
 *		in the order in which InitPostgres() does it.  The sources decide what
 *		wins, as in any session, so what the session had set stays, and
 *		privilege.c knows whose word a setting is.
 *
 *		Settings with which no cycle could begin are not taken over.
 *
 *		Part of the coordinator.
 *
 *-------------------------------------------------------------------------
 */
#include "renew.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "catalog/pg_db_role_setting.h"
#include "common/hashfn.h"
#include "compat.h"
#include "errors.h"
#include "launch.h"
#include "libpq/pqsignal.h"
#include "log.h"
#include "miscadmin.h"
#include "postmaster/interrupt.h"
#include "settings.h"
#include "transaction.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "warehouse.h"

void
dmu_renew_listen(void)
{
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
}

bool
dmu_renew_is_reloaded(void)
{
	bool		result = ConfigReloadPending;

	ConfigReloadPending = false;
	return result;
}

static uint64
hash_stored(Relation relation, Oid database, Oid role, uint64 hash)
{
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&keys[0], Anum_pg_db_role_setting_setdatabase,
				BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(database));
	ScanKeyInit(&keys[1], Anum_pg_db_role_setting_setrole,
				BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(role));
	scan = systable_beginscan(relation, DbRoleSettingDatidRolidIndexId, true,
							  NULL, 2, keys);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		bool		isnull;
		Datum		value = heap_getattr(tuple, Anum_pg_db_role_setting_setconfig,
										 RelationGetDescr(relation), &isnull);
		struct varlena *config;

		if (isnull)
			continue;
		config = PG_DETOAST_DATUM(value);
		hash = hash_bytes_extended((unsigned char *) VARDATA(config),
								   VARSIZE(config) - VARHDRSZ, hash);
	}
	systable_endscan(scan);
	return hash_bytes_uint32_extended(role, hash);
}

bool
dmu_renew_is_due(uint64 *stored)
{
	Relation	relation = table_open(DbRoleSettingRelationId, AccessShareLock);
	Oid			role = GetAuthenticatedUserId();
	uint64		before = *stored;

	*stored = hash_stored(relation, MyDatabaseId, role, 0);
	*stored = hash_stored(relation, InvalidOid, role, *stored);
	*stored = hash_stored(relation, MyDatabaseId, InvalidOid, *stored);
	*stored = hash_stored(relation, InvalidOid, InvalidOid, *stored);
	table_close(relation, AccessShareLock);
	return *stored != before;
}

/* As process_settings() in utils/init/postinit.c. */
static void
apply_stored(void)
{
	Relation	relation = table_open(DbRoleSettingRelationId, AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetCatalogSnapshot(DbRoleSettingRelationId));
	Oid			role = GetAuthenticatedUserId();

	ApplySetting(snapshot, MyDatabaseId, role, relation, PGC_S_DATABASE_USER);
	ApplySetting(snapshot, InvalidOid, role, relation, PGC_S_USER);
	ApplySetting(snapshot, MyDatabaseId, InvalidOid, relation, PGC_S_DATABASE);
	ApplySetting(snapshot, InvalidOid, InvalidOid, relation, PGC_S_GLOBAL);
	UnregisterSnapshot(snapshot);
	table_close(relation, AccessShareLock);
}

/* palloc'd */
static char *
serialize(Size *size)
{
	char	   *state;

	*size = add_size(EstimateGUCStateSpace(), sizeof(Size));
	state = palloc0(*size);
	SerializeGUCState(*size, state);
	memcpy(size, state, sizeof(Size));
	*size += sizeof(Size);
	return state;
}

/*
 * Goes over a state in the format of SerializeGUCState() in utils/misc/guc.c.
 * Returns a number that stands for all its names, values and sources, in any order;
 * and leaves out of it what was stored, if wanted.
 */
static uint64
go_over(char *state, bool leave_out)
{
	Size		size;
	char	   *from = state + sizeof(Size);
	char	   *to = from;
	char	   *end;
	uint64		sum = 0;

	memcpy(&size, state, sizeof(Size));
	end = from + size;
	while (from < end)
	{
		char	   *entry = from;
		char	   *file;
		GucSource	source;
		Size		length;
		uint64		hash;

		from += strlen(from) + 1;
		from += strlen(from) + 1;
		file = from;
		hash = hash_bytes_extended((unsigned char *) entry, file - entry, 0);
		from += strlen(from) + 1;
		if (*file != '\0')
			from += sizeof(int);
		memcpy(&source, from, sizeof(source));
		from += sizeof(GucSource) + sizeof(GucContext) + sizeof(Oid);
		sum += hash_bytes_uint32_extended((uint32) source, hash);

		length = from - entry;
		if (leave_out &&
			(source >= PGC_S_GLOBAL && source <= PGC_S_DATABASE_USER))
			continue;
		if (leave_out)
			memmove(to, entry, length);
		to += length;
	}
	if (from != end)
		elog(ERROR, "unexpected format of the server's settings");
	if (leave_out)
	{
		size = to - (state + sizeof(Size));
		memcpy(state, &size, sizeof(Size));
	}
	return sum;
}

/* As a process of the service begins, with what is true now if so wanted. */
static void
restore(DmuControl *control, char *state, bool anew)
{
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	SetUserIdAndSecContext(control->identity.authenticated_role, 0);
	RestoreGUCState(state);
	if (anew)
	{
		ProcessConfigFile(PGC_SIGHUP);
		apply_stored();
	}
	CommitTransactionCommand();
}

/* Raises what would keep a cycle from beginning. */
static void
try_settings(DmuControl *control, MemoryContext context)
{
	dmu_transaction_begin();
	dmu_warehouse_check_privileges(dmu_warehouse_resolve_again(control->request.users),
								   true);
	dmu_settings_check_worker_settings();
	dmu_transaction_commit(context);
}

static void
refuse(const char *reason, const char *detail)
{
	ereport(WARNING,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("%s: service goes on with the settings that it has, because no cycle could begin with the changed ones: %s",
					dmu_log_cycle(), reason),
			 detail[0] != '\0' ? errdetail_internal("%s", detail) : 0,
			 errhint("Correct them, or stop the service and start it again.")));
}

bool
dmu_renew_settings(DmuControl *control, MemoryContext context)
{
	char	   *published;
	char	   *before;
	char	   *volatile after = NULL;
	volatile Size size = 0;
	Size		before_size;
	uint64		sum;
	DmuError   *error;
	volatile bool good = false;

	MemoryContextSwitchTo(context);
	error = palloc(sizeof(DmuError));
	before = serialize(&before_size);
	published = dmu_launch_settings(control);
	sum = go_over(published, false);
	(void) go_over(published, true);

	PG_TRY();
	{
		Size		after_size;

		restore(control, published, true);
		MemoryContextSwitchTo(context);
		after = serialize(&after_size);
		size = after_size;
		dmu_launch_become_caller(control);
		try_settings(control, context);
		good = true;
	}
	PG_CATCH();
	{
		dmu_error_catch(error, context);
		if (error->sqlerrcode == ERRCODE_QUERY_CANCELED)
			dmu_error_raise(error);
		refuse(error->message, error->detail);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);

	if (good && go_over(after, false) == sum)
		good = false;
	else if (good && !dmu_launch_publish_settings(control, after, size))
	{
		refuse("they are too long", "");
		good = false;
	}
	if (!good)
	{
		restore(control, before, false);
		MemoryContextSwitchTo(context);
		dmu_launch_become_caller(control);
		dmu_launch_announce(control, DMU_COORDINATOR);
		return false;
	}
	(void) dmu_launch_settings(control);
	strlcpy(control->identity.synchronous_commit,
			GetConfigOption("synchronous_commit", false, false),
			sizeof(control->identity.synchronous_commit));
	ereport(LOG,
			(errmsg("%s: service takes over changed settings, one worker after the other",
					dmu_log_cycle()),
			 DMU_LOG_ALONE));
	return true;
}
