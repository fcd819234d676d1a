/*-------------------------------------------------------------------------
 *
 * allowed.c
 *		May a service go on?
 *
 *		A cycle is refused when it starts; a service has started long ago.
 *		Before every look, therefore, it asks again what a cycle is asked: is the
 *		role still there, may it log in and connect, may it call what started
 *		the service, has it its rights on the warehouse, is the extension the
 *		same.
 *
 *		This file knows the control segment, and nothing of what is in the
 *		queue.
 *
 *-------------------------------------------------------------------------
 */
#include "allowed.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "catalog/pg_extension.h"
#include "compat.h"
#include "errors.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "transaction.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "warehouse.h"

/* The version of the extension, palloc'd; NULL if it is not there. */
static char *
extension_version(void)
{
	Relation	relation = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	char	   *version = NULL;

	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber,
				F_NAMEEQ, CStringGetDatum(DMU_EXTENSION_NAME));
	scan = systable_beginscan(relation, ExtensionNameIndexId, true, NULL, 1,
							  &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		bool		isnull;
		Datum		value = heap_getattr(tuple, Anum_pg_extension_extversion,
										 RelationGetDescr(relation), &isnull);

		version = isnull ? NULL : TextDatumGetCString(value);
	}
	systable_endscan(scan);
	table_close(relation, AccessShareLock);
	return version;
}

static void
check_extension(const DmuControl *control)
{
	char	   *version = extension_version();

	if (version == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("extension \"%s\" was dropped", DMU_EXTENSION_NAME)));
	if (strncmp(version, control->service.version,
				sizeof(control->service.version) - 1) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("extension \"%s\" was updated from version %s to %s",
						DMU_EXTENSION_NAME, control->service.version, version),
				 errhint("Start the service again with datamart_users_start_service().")));
	pfree(version);
}

static void
check_role(Oid role, bool must_log_in)
{
	HeapTuple	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(role));
	bool		can_log_in;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("the role of the service with OID %u was dropped", role)));
	can_log_in = ((Form_pg_authid) GETSTRUCT(tuple))->rolcanlogin;
	ReleaseSysCache(tuple);
	if (must_log_in && !can_log_in)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("role \"%s\" of the service may not log in any more",
						GetUserNameFromId(role, false))));
}

void
dmu_allowed_begin(DmuControl *control)
{
	char	   *version = extension_version();

	strlcpy(control->service.version, version != NULL ? version : "",
			sizeof(control->service.version));
}

void
dmu_allowed_check(DmuControl *control)
{
	const DmuIdentity *identity = &control->identity;

	check_extension(control);
	check_role(identity->authenticated_role, true);
	check_role(identity->current_role, false);
	if (dmu_database_aclcheck(MyDatabaseId, identity->authenticated_role,
							  ACL_CONNECT) != ACLCHECK_OK)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("role \"%s\" of the service may not connect to the database any more",
						GetUserNameFromId(identity->authenticated_role, false))));
	if (dmu_procedure_aclcheck(control->request.function,
							   identity->current_role, ACL_EXECUTE) != ACLCHECK_OK)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("role \"%s\" of the service may not call datamart_users_start_service() any more",
						GetUserNameFromId(identity->current_role, false))));
	dmu_warehouse_check_privileges(dmu_warehouse_resolve_again(control->request.users),
								   true);
}

void
dmu_allowed_explain(const DmuControl *control, DmuError *error,
					MemoryContext context)
{
	if (control->service.version[0] == '\0')
		return;
	PG_TRY();
	{
		dmu_transaction_begin();
		check_extension(control);
		dmu_transaction_commit(context);
	}
	PG_CATCH();
	{
		dmu_error_catch(error, context);
	}
	PG_END_TRY();
}

bool
dmu_allowed_in_database(void)
{
	LOCKTAG		tag;

	/* As InitPostgres() locks it, which would wait. */
	SET_LOCKTAG_OBJECT(tag, InvalidOid, DatabaseRelationId, MyDatabaseId, 0);
	if (LockAcquire(&tag, RowExclusiveLock, true, true) == LOCKACQUIRE_NOT_AVAIL)
		return false;
	(void) LockRelease(&tag, RowExclusiveLock, true);
	return true;
}
