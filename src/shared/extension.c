/*-------------------------------------------------------------------------
 *
 * extension.c
 *		The extension as this database has it: its schema, and the version of
 *		its script beside that of the library.
 *
 *		This file reads the catalog as whoever calls it, and does not know what
 *		the extension's tables are.
 *
 *-------------------------------------------------------------------------
 */
#include "extension.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "catalog/pg_extension.h"
#include "commands/dbcommands.h"
#include "datamart_users.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

Oid
dmu_extension_schema(char **version)
{
	Relation	extensions = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	Oid			schema = InvalidOid;

	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber,
				F_NAMEEQ, CStringGetDatum(DMU_EXTENSION_NAME));
	scan = systable_beginscan(extensions, ExtensionNameIndexId, true,
							  NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		schema = ((Form_pg_extension) GETSTRUCT(tuple))->extnamespace;
		if (version != NULL)
		{
			bool		is_null;

			*version = TextDatumGetCString(heap_getattr(tuple, Anum_pg_extension_extversion,
														RelationGetDescr(extensions), &is_null));
		}
	}
	systable_endscan(scan);
	table_close(extensions, AccessShareLock);
	return schema;
}

int
dmu_extension_compare(const char *version)
{
	int			major = 0;
	int			minor = 0;
	int			own_major = 0;
	int			own_minor = 0;

	(void) sscanf(version, "%d.%d", &major, &minor);
	(void) sscanf(DMU_EXTENSION_VERSION, "%d.%d", &own_major, &own_minor);
	return major != own_major ? major - own_major : minor - own_minor;
}

/*
 * Whoever installs files need not be who updates the extension in every
 * database, and the tables of an older script may lack what we write.  The
 * other way round, in a session or a cycle that has kept an older library, they
 * have all that it knows of; see dmu_extension_explain_newer() where not.
 */
void
dmu_extension_refuse_older(const char *version)
{
	if (dmu_extension_compare(version) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("extension \"%s\" has version %s in database \"%s\", and its library version %s",
						DMU_EXTENSION_NAME, version,
						get_database_name(MyDatabaseId),
						DMU_EXTENSION_VERSION),
				 errhint("Run ALTER EXTENSION %s UPDATE.", DMU_EXTENSION_NAME)));
}

static char *
newer_script_hint(const char *version)
{
	return psprintf(_("The extension has version %s in this database, and the library of this process is that of version %s.  Reconnect; where that does not help, install the library of version %s, and restart the server if it preloads it."),
					version, DMU_EXTENSION_VERSION, version);
}

void
dmu_extension_explain_newer(void *arg)
{
	MemoryContext old_context = MemoryContextSwitchTo(TopMemoryContext);
	ErrorData  *edata = CopyErrorData();
	int			category = ERRCODE_TO_CATEGORY(edata->sqlerrcode);

	MemoryContextSwitchTo(old_context);
	if (edata->elevel >= ERROR && edata->hint == NULL &&
		(category == ERRCODE_SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION ||
		 category == ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION ||
		 category == ERRCODE_DATA_EXCEPTION ||
		 category == ERRCODE_INTERNAL_ERROR))
		errhint("%s", newer_script_hint((const char *) arg));
	FreeErrorData(edata);
}

char	   *
dmu_extension_version_hint(bool *newer)
{
	char	   *version = NULL;
	Oid			schema = dmu_extension_schema(&version);
	int			comparison = OidIsValid(schema) ? dmu_extension_compare(version) : 0;

	if (newer != NULL)
		*newer = comparison > 0;
	return comparison == 0 ? NULL :
		comparison > 0 ? newer_script_hint(version) :
		psprintf(_("Run ALTER EXTENSION %s UPDATE."), DMU_EXTENSION_NAME);
}
