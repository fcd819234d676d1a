/*-------------------------------------------------------------------------
 *
 * check_triggers.c
 *		The doctor on triggers that a refresh fires because it clears the flag.
 *
 *		A trigger that keeps the time of the last change, or tells others of
 *		one, takes every refresh for a change of the datamart user.  Its WHEN
 *		can leave out the update that does nothing but clear the flag; what it
 *		has now is only looked at: to try it would run its owner's code with
 *		the rights of whoever asks the doctor.
 *
 *-------------------------------------------------------------------------
 */
#include "check.h"

#include "access/sysattr.h"
#include "below.h"
#include "catalog.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "nodes/bitmapset.h"
#include "nodes/nodes.h"
#include "nodes/primnodes.h"
#include "optimizer/optimizer.h"
#include "utils/builtins.h"

/*
 * $1 is a table with the flag, $2 the name of that.  Those of partitions and
 * children come along, but triggers for each statement fire only where the
 * update names the table.  Rules have no WHEN, and no tgqual.
 *
 * What to do: the same trigger with one more condition; where it is for other
 * events, too, which have no OLD or no NEW, one for the update beside it.
 */
static const char triggers_sql[] =
"WITH RECURSIVE tree (relid) AS ("
"   SELECT $1::oid"
"    UNION"
"   SELECT i.inhrelid FROM tree AS t JOIN pg_inherits AS i ON i.inhparent = t.relid),"
" fired AS ("
"   SELECT t.oid, t.tgname, t.tgqual, t.tgtype, t.tgconstraint, a.attnum,"
"          format('%I.%I', n.nspname, c.relname) AS relation,"
"          format('(OLD.%1$I AND NOT NEW.%1$I) IS NOT TRUE', $2) AS condition,"
"          regexp_match(pg_get_triggerdef(t.oid),"
"                       '^CREATE TRIGGER (.*) FOR EACH ROW(?: WHEN \\((.*)\\))?( EXECUTE FUNCTION .*)$') AS def,"
"          CASE WHEN t.tgtype & 2 <> 0 THEN 'BEFORE' ELSE 'AFTER' END AS timing,"
"          (SELECT ' OF ' || string_agg(quote_ident(o.attname), ', ')"
"             FROM pg_attribute AS o"
"            WHERE o.attrelid = t.tgrelid AND o.attnum = ANY (t.tgattr)) AS columns"
"     FROM tree"
"     JOIN pg_trigger AS t ON t.tgrelid = tree.relid"
"     JOIN pg_class AS c ON c.oid = t.tgrelid"
"     JOIN pg_namespace AS n ON n.oid = c.relnamespace"
"     JOIN pg_attribute AS a ON a.attrelid = t.tgrelid AND a.attname = $2"
"    WHERE NOT t.tgisinternal AND t.tgparentid = 0 AND t.tgenabled IN ('O', 'A')"
"      AND t.tgtype & 16 <> 0 AND t.tgtype & 64 = 0"
"      AND (t.tgtype & 1 <> 0 OR t.tgrelid = $1)"
"      AND (t.tgattr::text = '' OR a.attnum = ANY (t.tgattr)))"
"SELECT format('trigger %I of %s', tgname, relation), tgqual::text, attnum,"
"       CASE WHEN tgtype & 1 = 0"
"            THEN format('-- trigger %I is for each statement and sees no row: make it one FOR EACH ROW, or UPDATE OF the columns that it is for', tgname)"
"            WHEN tgconstraint <> 0"
"            THEN format('-- drop constraint trigger %I, and create it for the update with WHEN (%s)', tgname, condition)"
"            WHEN tgtype & 12 = 0"
"            THEN format('CREATE OR REPLACE TRIGGER %s FOR EACH ROW WHEN (%s%s)%s;', def[1],"
"                        '(' || def[2] || ') AND ', condition, def[3])"
"            ELSE format('CREATE OR REPLACE TRIGGER %I %s %s ON %s FOR EACH ROW%s%s;', tgname, timing,"
"                        CASE tgtype & 12 WHEN 4 THEN 'INSERT' WHEN 8 THEN 'DELETE' ELSE 'INSERT OR DELETE' END,"
"                        relation, ' WHEN (' || def[2] || ')', def[3])"
"                 || E'\\n' ||"
"                 format('CREATE TRIGGER %I %s UPDATE%s ON %s FOR EACH ROW WHEN (%s%s)%s;', tgname || '_on_update', timing, columns,"
"                        relation, '(' || def[2] || ') AND ', condition, def[3])"
"        END"
"  FROM fired"
" UNION ALL "
"SELECT format('rule %I of %s', r.rulename, r.ev_class::regclass), NULL, 0,"
"       format('-- rule %I runs for every refresh: a trigger with WHEN would not', r.rulename)"
"  FROM pg_rewrite AS r"
" WHERE r.ev_class = $1 AND r.ev_type = '2' AND r.ev_enabled IN ('O', 'A')"
" ORDER BY 1";

/* Columns of OLD or of NEW in an expression, as pull_varattnos() counts. */
static Bitmapset *
columns_of(Node *expression, int varno)
{
	Bitmapset  *columns = NULL;

	pull_varattnos(expression, varno, &columns);
	return columns;
}

static bool
has_column(const Bitmapset *columns, int attnum)
{
	return bms_is_member(attnum - FirstLowInvalidHeapAttributeNumber, columns);
}

/*
 * True if an update of nothing but the flag may fulfil the condition of a
 * trigger.  One that names the flag was made with it in mind; one that compares
 * other columns of OLD and NEW sees no change in them.
 */
static bool
may_fire(const char *condition, int flag)
{
	Node	   *expression;
	Bitmapset  *old_columns;
	Bitmapset  *new_columns;

	if (condition == NULL)
		return true;
	expression = stringToNode(condition);
	old_columns = columns_of(expression, PRS2_OLD_VARNO);
	new_columns = columns_of(expression, PRS2_NEW_VARNO);
	if (has_column(old_columns, flag) || has_column(new_columns, flag))
		return false;
	return bms_is_empty(old_columns) || bms_is_empty(new_columns) ||
		has_column(old_columns, InvalidAttrNumber) ||
		has_column(new_columns, InvalidAttrNumber);
}

static void
look_at_table(DmuDoctor *doctor, const DmuColumnBelow *flag,
			  StringInfo detail, StringInfo hint)
{
	Oid			types[2] = {OIDOID, TEXTOID};
	Datum		values[2];
	DmuCatalogQuery query;

	values[0] = ObjectIdGetDatum(flag->relid);
	values[1] = CStringGetTextDatum(flag->name);
	dmu_catalog_begin(&query, doctor->context, triggers_sql, lengthof(types),
					  types, values, NULL);
	for (uint64 row = 0; row < SPI_processed; row++)
	{
		if (!may_fire(dmu_catalog_text(row, 2),
					  DatumGetInt16(dmu_catalog_datum(row, 3))))
			continue;
		appendStringInfo(detail, "%s%s", detail->len > 0 ? "; " : "",
						 dmu_catalog_text(row, 1));
		appendStringInfo(hint, "%s%s", hint->len > 0 ? "\n" : "",
						 dmu_catalog_text(row, 4));
	}
	dmu_catalog_end(&query);
}

void
dmu_check_triggers(DmuDoctor *doctor, DmuFinding *finding)
{
	StringInfoData detail;
	StringInfoData hint;
	ListCell   *lc;

	initStringInfo(&detail);
	initStringInfo(&hint);
	if (OidIsValid(doctor->warehouse.users))
	{
		foreach(lc, dmu_below_column(doctor->warehouse.users,
									 doctor->warehouse.users_flag.name))
			look_at_table(doctor, lfirst(lc), &detail, &hint);
	}
	if (detail.len == 0)
	{
		finding->detail = OidIsValid(doctor->warehouse.users) ?
			"none that every refresh fires" : "no users table to look at";
		return;
	}
	finding->status = "warning";
	finding->detail = psprintf("every refresh clears the flag, and by that fires %s",
							   detail.data);
	finding->hint = hint.data;
}
