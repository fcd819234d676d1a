/*-------------------------------------------------------------------------
 *
 * misspelt.c
 *		Settings with our prefix that there are not.
 *
 *		The server refuses to set one as soon as it knows ours.  Before that it
 *		takes any name, and when the library is loaded it takes it away again
 *		with a WARNING; a cycle would then run without what its caller has asked
 *		for.  So what was set in the session itself, or with the connection, is
 *		an error of the next call.  What is stored for a role or a database is
 *		not: it may be for another version of the library, and the doctor finds
 *		it.
 *
 *		Knows no catalog: it is called where there may be no transaction.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"
#include "datamart_users.h"
#include "misspelt.h"
#include "settings.h"
#include "utils/formatting.h"
#include "utils/memutils.h"
#include "utils/varlena.h"

#define PREFIX DMU_EXTENSION_NAME "."

/* Letters by which a name that is meant may differ from one that is written. */
#define MAX_TYPO 4

/* NULL = none.  Of several the first found will do. */
static char *misspelt = NULL;

void
dmu_misspelt_remember(void)
{
	int			nsettings;
	struct config_generic **settings = dmu_all_settings(&nsettings);

	for (int i = 0; i < nsettings && misspelt == NULL; i++)
	{
		const struct config_generic *setting = settings[i];

		if ((setting->flags & GUC_CUSTOM_PLACEHOLDER) != 0 &&
			(setting->source == PGC_S_SESSION || setting->source == PGC_S_CLIENT) &&
			pg_strncasecmp(setting->name, PREFIX, strlen(PREFIX)) == 0)
			misspelt = MemoryContextStrdup(TopMemoryContext, setting->name);
	}
}

const char *
dmu_misspelt_nearest(const char *name)
{
	const char *nearest = NULL;
	int			least = MAX_TYPO + 1;
	const char *candidate;
	char	   *written;

	/* Longer ones than that are no misspelling. */
	if (strlen(name) > NAMEDATALEN)
		return NULL;
	written = asc_tolower(name, strlen(name));
	for (int i = 0; (candidate = dmu_settings_name(i)) != NULL; i++)
	{
		int			distance = varstr_levenshtein(written, strlen(written),
												  candidate, strlen(candidate),
												  1, 1, 1, true);

		if (distance < least)
		{
			least = distance;
			nearest = candidate;
		}
	}
	return nearest;
}

void
dmu_misspelt_refuse(void)
{
	char	   *name = misspelt;
	const char *nearest;

	if (name == NULL)
		return;
	misspelt = NULL;
	nearest = dmu_misspelt_nearest(name);
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("unrecognized configuration parameter \"%s\"", name),
			 errdetail("It was set in this session before the library of datamart_users was loaded, which does not have it."),
			 nearest != NULL ?
			 errhint("Perhaps you meant \"%s\".", nearest) :
			 errhint("SELECT name, short_desc FROM pg_settings WHERE name LIKE 'datamart\\_users.%%' shows those that there are.")));
}
