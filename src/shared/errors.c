/*-------------------------------------------------------------------------
 *
 * errors.c
 *		An error on its way from one process to another, or into a table.
 *
 *		Of fixed size, because it travels in shared memory and because a
 *		procedure may raise an error of any length.
 *
 *-------------------------------------------------------------------------
 */
#include "errors.h"

#include "access/xact.h"
#include "mb/pg_wchar.h"

static void
copy_text(char *target, const char *text)
{
	int			len;

	if (text == NULL)
		text = "";

	len = pg_mbcliplen(text, (int) strlen(text), DMU_ERROR_TEXT_LEN - 1);
	memcpy(target, text, len);
	target[len] = '\0';
}

void
dmu_error_set(DmuError *error, int sqlerrcode, const char *message,
			  const char *detail, const char *hint)
{
	error->sqlerrcode = sqlerrcode;
	copy_text(error->message, message);
	copy_text(error->detail, detail);
	copy_text(error->hint, hint);
	copy_text(error->context, NULL);
}

void
dmu_error_copy(DmuError *error, const ErrorData *edata)
{
	dmu_error_set(error, edata->sqlerrcode, edata->message, edata->detail,
				  edata->hint);
	copy_text(error->context, edata->context);
}

void
dmu_error_catch(DmuError *error, MemoryContext context)
{
	ErrorData  *edata;

	MemoryContextSwitchTo(context);
	edata = CopyErrorData();
	FlushErrorState();
	AbortOutOfAnyTransaction();
	MemoryContextSwitchTo(context);

	dmu_error_copy(error, edata);
	FreeErrorData(edata);
}

void
dmu_error_report(int elevel, const DmuError *error, const char *prefix)
{
	ereport(elevel,
			(errcode(error->sqlerrcode),
			 errmsg_internal("%s%s", prefix, error->message),
			 error->detail[0] != '\0' ? errdetail_internal("%s", error->detail) : 0,
			 error->hint[0] != '\0' ? errhint("%s", error->hint) : 0,
			 error->context[0] != '\0' ? errcontext("%s", error->context) : 0));
}

void
dmu_error_raise(const DmuError *error)
{
	dmu_error_report(ERROR, error, "");
}
