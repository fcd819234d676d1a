/*-------------------------------------------------------------------------
 *
 * column.c
 *		The columns of the warehouse: named by settings, and judged.
 *
 *		A name in a setting is read as SQL would read it, so a column can be
 *		called whatever a column can be called.  From here on there are two
 *		forms of it, and no third: as the catalog has it, for look-ups and
 *		messages, and quoted, for SQL.
 *
 *		This file knows no SPI and no shared memory, and no privilege; which
 *		relation a column has to be in is its caller's business.
 *
 *-------------------------------------------------------------------------
 */
#include "column.h"

#include "catalog/pg_type.h"
#include "datamart_users.h"
#include "parse.h"
#include "settings.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

/* What the setting of a column is called, and which base types will do. */
typedef struct ColumnSetting
{
	const char *name;
	char	  **value;
	Oid			types[3];
	const char *types_text;
} ColumnSetting;

#define KEY_TYPES {INT4OID, INT8OID, INT2OID}, "smallint, integer or bigint"
#define TIME_TYPES {TIMESTAMPOID, TIMESTAMPTZOID, DATEOID}, \
	"timestamp, timestamp with time zone or date"

/* By DmuColumnUse. */
static const ColumnSetting column_settings[] = {
	{DMU_EXTENSION_NAME ".facts_user_column", &dmu_facts_user_column, KEY_TYPES},
	{DMU_EXTENSION_NAME ".facts_time_column", &dmu_facts_time_column, TIME_TYPES},
	{DMU_EXTENSION_NAME ".users_key_column", &dmu_users_key_column, KEY_TYPES},
	{DMU_EXTENSION_NAME ".users_flag_column", &dmu_users_flag_column,
	{BOOLOID, InvalidOid, InvalidOid}, "boolean"},
	{DMU_EXTENSION_NAME ".users_since_column", &dmu_users_since_column, TIME_TYPES}
};

const char *
dmu_column_setting(DmuColumnUse use)
{
	return column_settings[use].name;
}

void
dmu_column_read(DmuColumnUse use, DmuColumn *column)
{
	const ColumnSetting *setting = &column_settings[use];

	column->name = column->quoted = NULL;
	if (use == DMU_USERS_SINCE && **setting->value == '\0')
		return;
	if (!dmu_parse_column(*setting->value, &column->name))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("invalid name in setting %s", setting->name)));
	column->quoted = pstrdup(quote_identifier(column->name));
}

static void
no_column(const ColumnSetting *column_setting, const DmuColumn *column,
		  const char *setting, const char *relation_name)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_COLUMN),
			 errmsg("column \"%s\" of relation \"%s\" does not exist",
					column->name, relation_name),
			 errhint("Set %s to what this relation calls the column, or %s to another relation.",
					 column_setting->name, setting)));
}

Oid
dmu_column_require(DmuColumnUse use, const DmuColumn *column, Oid relation,
				   const char *setting, const char *relation_name)
{
	const ColumnSetting *column_setting = &column_settings[use];
	AttrNumber	attnum = get_attnum(relation, column->name);
	Oid			base_type;
	bool		fits = false;

	if (attnum == InvalidAttrNumber)
		no_column(column_setting, column, setting, relation_name);

	base_type = getBaseType(get_atttype(relation, attnum));
	for (int i = 0; i < (int) lengthof(column_setting->types); i++)
		fits |= OidIsValid(base_type) && column_setting->types[i] == base_type;
	if (!fits)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("column \"%s\" of relation \"%s\" is of type %s",
						column->name, relation_name, format_type_be(base_type)),
				 errdetail("It must be of type %s.", column_setting->types_text),
				 errhint("Set %s to another column, or %s to a relation with this type, such as a view that converts the column.",
						 column_setting->name, setting)));

	if (use == DMU_USERS_FLAG && get_attgenerated(relation, attnum) != '\0')
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("column \"%s\" of relation \"%s\" cannot be updated",
						column->name, relation_name),
				 errdetail("It is a generated column."),
				 errhint("Set %s to a column of its own, which the ETL sets.",
						 column_setting->name)));
	return base_type;
}
