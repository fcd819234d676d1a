/*-------------------------------------------------------------------------
 *
 * log.c
 *		How a line in the server log begins that a process of a cycle writes.
 *
 *		Cycles of several databases, and several in one, write into the same
 *		log.  This file writes nothing itself.
 *
 *-------------------------------------------------------------------------
 */
#include "log.h"

#include "commands/dbcommands.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

static const DmuControl *own_control = NULL;
static NameData database;

static char beginning[2 * NAMEDATALEN + 64];

void
dmu_log_begin(const DmuControl *control)
{
	const char *name = get_database_name(MyDatabaseId);

	own_control = control;
	namestrcpy(&database, name != NULL ? name : "?");
}

const char *
dmu_log_cycle(void)
{
	if (own_control == NULL)
		return "datamart_users";
	if (own_control->head.cycle_id == 0)
		snprintf(beginning, sizeof(beginning),
				 "datamart_users in database \"%s\"", NameStr(database));
	else
		snprintf(beginning, sizeof(beginning),
				 "datamart_users cycle " INT64_FORMAT " in database \"%s\"",
				 own_control->head.cycle_id, NameStr(database));
	return beginning;
}

const char *
dmu_log_worker(int number)
{
	Size		length;

	if (dmu_log_cycle() != beginning)
		return "datamart_users";
	length = strlen(beginning);
	snprintf(beginning + length, sizeof(beginning) - length,
			 ", worker %d", number);
	return beginning;
}
