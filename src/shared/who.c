/*-------------------------------------------------------------------------
 *
 * who.c
 *		Who did it, in words for a message.
 *
 *		Tells what pg_stat_activity shows to everybody, and no more.  Knows
 *		nothing of cycles.
 *
 *-------------------------------------------------------------------------
 */
#include "who.h"

#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "utils/guc.h"

char	   *
dmu_who_am_i(void)
{
	StringInfoData text;
	Oid			session_role = GetAuthenticatedUserId();
	char	   *name = GetUserNameFromId(session_role, true);

	initStringInfo(&text);
	appendStringInfo(&text, "role \"%s\"", name != NULL ? name : "?");
	if (GetUserId() != session_role)
	{
		name = GetUserNameFromId(GetUserId(), true);
		appendStringInfo(&text, " as \"%s\"", name != NULL ? name : "?");
	}
	appendStringInfo(&text, " (process %d", MyProcPid);
	if (application_name != NULL && application_name[0] != '\0')
		appendStringInfo(&text, ", application \"%s\"", application_name);
	appendStringInfoChar(&text, ')');
	return text.data;
}

char	   *
dmu_who_is(int pid)
{
	PGPROC	   *proc;
	Oid			role;
	char	   *name;

	if (pid <= 0)
		return pstrdup("an administrator");
	proc = BackendPidGetProc(pid);
	if (proc == NULL)
		return psprintf("process %d", pid);

	/* It may end at any time, but its entry stays readable. */
	role = proc->roleId;
	name = OidIsValid(role) ? GetUserNameFromId(role, true) : NULL;
	if (name == NULL)
		return psprintf("process %d", pid);
	return psprintf("process %d of role \"%s\"", pid, name);
}
