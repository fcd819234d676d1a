/*-------------------------------------------------------------------------
 *
 * datamart_users.c
 *		Loads the extension: its settings, and nothing else.
 *
 *		No hook, no shared memory request: the library may be loaded by the
 *		first call of a function as well as by shared_preload_libraries.
 *
 *-------------------------------------------------------------------------
 */
#include "datamart_users.h"

#include "compat.h"
#include "settings.h"

DMU_MODULE_MAGIC("datamart_users", "1.0");

extern PGDLLEXPORT void _PG_init(void);

void
_PG_init(void)
{
	dmu_settings_init();
}
