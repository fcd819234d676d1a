/*-------------------------------------------------------------------------
 *
 * check_processes.c
 *		The doctor on what a new process of a cycle meets: is it let into the
 *		database, and what bounds its work there?  And is there a service?
 *
 *		The server asks the former when a process connects, and answers with
 *		FATAL; the rules are those of InitializeSessionUserId() and
 *		CheckMyDatabase() (utils/init).
 *
 *-------------------------------------------------------------------------
 */
#include "check.h"

#include "access/htup_details.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "compat.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "procedure.h"
#include "progress.h"
#include "settings.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

/*
 * The role that processes log in as: that of the session, or the one that is
 * asked about, unless it is one that others only SET ROLE to.
 */
static Oid
login_role(const DmuDoctor *doctor, bool *can_login, char **name)
{
	Oid			role = GetAuthenticatedUserId();
	HeapTuple	tuple = NULL;
	Form_pg_authid form;

	if (OidIsValid(doctor->role) && doctor->role != GetUserId())
		tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(doctor->role));
	if (HeapTupleIsValid(tuple))
	{
		if (((Form_pg_authid) GETSTRUCT(tuple))->rolcanlogin)
			role = doctor->role;
		ReleaseSysCache(tuple);
	}

	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(role));
	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("the role that this session logged in as does not exist any more"),
				 errhint("Connect as another role.")));
	form = (Form_pg_authid) GETSTRUCT(tuple);
	*can_login = form->rolcanlogin;
	*name = pstrdup(NameStr(form->rolname));
	ReleaseSysCache(tuple);
	return role;
}

void
dmu_check_connections(DmuDoctor *doctor, DmuFinding *finding)
{
	HeapTuple	tuple = SearchSysCache1(DATABASEOID,
										ObjectIdGetDatum(MyDatabaseId));
	const char *database;
	bool		open;
	bool		can_login;
	char	   *name;
	Oid			role;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for database %u", MyDatabaseId);
	open = ((Form_pg_database) GETSTRUCT(tuple))->datallowconn;
	database = quote_identifier(pstrdup(NameStr(((Form_pg_database) GETSTRUCT(tuple))->datname)));
	ReleaseSysCache(tuple);
	role = login_role(doctor, &can_login, &name);
	name = pstrdup(quote_identifier(name));

	finding->status = "error";
	if (!open)
	{
		finding->detail = psprintf("the processes of a cycle cannot connect: database %s has ALLOW_CONNECTIONS false",
								   database);
		finding->hint = psprintf("ALTER DATABASE %s ALLOW_CONNECTIONS true;", database);
	}
	else if (!can_login && DMU_CONNECTION_FLAGS == 0)
	{
		finding->detail = psprintf("the processes of a cycle cannot connect: role %s, as which they log in, has no LOGIN",
								   name);
		finding->hint = psprintf("ALTER ROLE %s LOGIN;", name);
	}
	else if (!DatumGetBool(DirectFunctionCall3(has_database_privilege_id_id,
											   ObjectIdGetDatum(role),
											   ObjectIdGetDatum(MyDatabaseId),
											   CStringGetTextDatum("CONNECT"))))
	{
		finding->detail = psprintf("the processes of a cycle cannot connect: role %s, as which they log in, lacks CONNECT on database %s",
								   name, database);
		finding->hint = psprintf("GRANT CONNECT ON DATABASE %s TO %s;", database, name);
	}
	else if (!OidIsValid(get_role_oid(GetConfigOption("session_authorization", false, false), true)))
	{
		finding->detail = psprintf("the processes of a cycle cannot take over this session: its role %s was renamed since it logged in",
								   name);
		finding->hint = "Reconnect.";
	}
	else
	{
		finding->status = "ok";
		finding->detail = psprintf("max_connections (%d) does not limit a cycle: its workers are background workers, which max_worker_processes limits; only the waiting caller has a connection",
								   MaxConnections);
	}
}

static int
worker_timeout(const char *name)
{
	int			timeout = 0;

	(void) parse_int(dmu_check_worker_value(name), &timeout, GUC_UNIT_MS, NULL);
	return timeout;
}

void
dmu_check_timeouts(DmuDoctor *doctor, DmuFinding *finding)
{
	StringInfoData text;
	int			call = worker_timeout("statement_timeout");
	int			own = -1;

	if (OidIsValid(doctor->warehouse.procedure))
		own = dmu_procedure_statement_timeout(doctor->warehouse.procedure);
	if (own >= 0)
		call = own;

	initStringInfo(&text);
	if (call > 0)
		appendStringInfo(&text, "a CALL may take %d ms (statement_timeout%s)",
						 call, own >= 0 ? " of the procedure" : "");
	else
		appendStringInfoString(&text, "a CALL may take any time (statement_timeout is 0)");
	if (dmu_user_timeout > 0)
		appendStringInfo(&text, "; a datamart user, with all attempts, %d ms (user_timeout)",
						 dmu_user_timeout);
	if (doctor->lock_timeout > 0)
		appendStringInfo(&text, "; a wait for a lock %d ms (lock_timeout), which counts as a collision",
						 doctor->lock_timeout);
	if (DMU_TRANSACTION_TIMEOUT != NULL &&
		worker_timeout(DMU_TRANSACTION_TIMEOUT) > 0)
		appendStringInfoString(&text, "; transaction_timeout does not reach workers");
	finding->detail = text.data;
}

/* A cycle of a datamart cannot begin beside its service. */
void
dmu_check_service(DmuDoctor *doctor, DmuFinding *finding)
{
	DmuProgressScan scan;
	DmuControl *control;

	finding->detail = "no service runs for this datamart";
	dmu_progress_begin(&scan);
	while ((control = dmu_progress_next_service(&scan)) != NULL)
	{
		if (control->head.users != doctor->warehouse.users)
			continue;
		finding->detail = psprintf("a service runs as role %s since %s, with %d workers, and has begun " INT64_FORMAT " cycles; its coordinator has process ID %d",
								   quote_identifier(NameStr(control->role_name)),
								   timestamptz_to_str(control->service.since),
								   (int) pg_atomic_read_u32(&control->workers_registered),
								   (int64) pg_atomic_read_u64(&control->service.cycles),
								   (int) control->head.coordinator_pid);
	}
	dmu_progress_end(&scan);
}
