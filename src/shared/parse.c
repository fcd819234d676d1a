/*-------------------------------------------------------------------------
 *
 * parse.c
 *		The texts that string settings hold, taken apart.
 *
 *		GUC hooks call this where there is no transaction, and must not throw:
 *		so nothing here looks into a catalog or knows what a text is for, and
 *		a bad text makes a function return false.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <ctype.h>

#include "lib/stringinfo.h"
#include "parse.h"
#include "parser/scansup.h"
#include "utils/varlena.h"

static const char *
skip_space(const char *p)
{
	while (scanner_isspace(*p))
		p++;
	return p;
}

bool
dmu_parse_name(const char *string, char **schema, char **name)
{
	List	   *parts;
	bool		ok = SplitIdentifierString(pstrdup(string), '.', &parts);

	ok = ok && (list_length(parts) == 1 || list_length(parts) == 2);
	if (ok)
	{
		*name = llast(parts);
		*schema = list_length(parts) == 2 ? linitial(parts) : NULL;
		ok = (*name)[0] != '\0' && (*schema == NULL || (*schema)[0] != '\0');
	}
	list_free(parts);
	return ok;
}

bool
dmu_parse_column(const char *string, char **name)
{
	char	   *schema;

	return dmu_parse_name(string, &schema, name) && schema == NULL;
}

/*
 * Cuts a list of type names at the commas that are neither quoted nor in
 * parentheses, as in "numeric(10,2), text".
 */
static bool
split_types(char *string, List **types)
{
	char	   *start = string;
	bool		quoted = false;
	int			depth = 0;

	*types = NIL;
	for (char *p = string;; p++)
	{
		bool		end = *p == '\0';

		if (end || (*p == ',' && !quoted && depth == 0))
		{
			*p = '\0';
			if (*skip_space(start) == '\0')
				return false;
			*types = lappend(*types, start);
			start = p + 1;
		}
		else if (*p == '"')
			quoted = !quoted;
		else if (!quoted && (*p == '(' || *p == '['))
			depth++;
		else if (!quoted && (*p == ')' || *p == ']') && --depth < 0)
			return false;

		if (end)
			return !quoted && depth == 0;
	}
}

bool
dmu_parse_procedure(const char *string, char **schema, char **name,
					List **argtypes)
{
	char	   *copy = pstrdup(string);
	char	   *open = copy;
	char	   *close = copy + strlen(copy);
	bool		quoted = false;

	for (; *open != '\0' && (quoted || *open != '('); open++)
	{
		if (*open == '"')
			quoted = !quoted;
	}

	*argtypes = NIL;
	if (*open != '\0')
	{
		do
			close--;
		while (scanner_isspace(*close));
		if (*close != ')')
			return false;
		*open = *close = '\0';
		if (!split_types(open + 1, argtypes))
			return false;
	}
	return dmu_parse_name(copy, schema, name);
}

/*
 * One name of worker_settings and the equals sign behind it.  Returns where
 * its value starts, or NULL.
 */
static const char *
parse_parameter_name(const char *p, char **name)
{
	const char *start = p;

	while (IS_HIGHBIT_SET(*p) || isalnum((unsigned char) *p) ||
		   (*p != '\0' && strchr("_$.", *p) != NULL))
		p++;
	*name = pnstrdup(start, p - start);
	if (p == start)
		return NULL;

	p = skip_space(p);
	return *p == '=' ? skip_space(p + 1) : NULL;
}

/*
 * One value of worker_settings, up to the comma or the end.  Without quotes
 * it is what SET would take without quotes, or a number with its unit.
 */
static const char *
parse_parameter_value(const char *p, char **value)
{
	StringInfoData buf;

	initStringInfo(&buf);
	*value = buf.data;
	if (*p == '\'')
	{
		for (p++; *p != '\0' && (*p != '\'' || p[1] == '\''); p++)
		{
			if (*p == '\'')
				p++;
			appendStringInfoChar(&buf, *p);
		}
		if (*p != '\'')
			return NULL;
		p = skip_space(p + 1);
	}
	else
	{
		for (; *p != '\0' && strchr(",='\"", *p) == NULL; p++)
			appendStringInfoChar(&buf, *p);
		while (buf.len > 0 && scanner_isspace(buf.data[buf.len - 1]))
			buf.data[--buf.len] = '\0';
		if (buf.len == 0)
			return NULL;
	}
	*value = buf.data;
	return *p == '\0' || *p == ',' ? p : NULL;
}

bool
dmu_parse_parameters(const char *string, List **settings)
{
	const char *p = skip_space(string);

	*settings = NIL;
	while (*p != '\0')
	{
		DmuWorkerSetting *setting = palloc(sizeof(DmuWorkerSetting));

		p = parse_parameter_name(p, &setting->name);
		if (p != NULL)
			p = parse_parameter_value(p, &setting->value);
		if (p == NULL)
			return false;
		*settings = lappend(*settings, setting);

		if (*p == ',')
		{
			p = skip_space(p + 1);
			if (*p == '\0')
				return false;
		}
	}
	return true;
}

bool
dmu_parse_numbers(const char *string, int n, int min, int max, int direction,
				  int *numbers)
{
	const char *p = string;

	for (int i = 0; i < n; i++)
	{
		char	   *end;
		long		number;

		errno = 0;
		number = strtol(p, &end, 10);
		if (end == p || errno != 0 || number < min || number > max)
			return false;
		numbers[i] = (int) number;
		if (i > 0 && (numbers[i] - numbers[i - 1]) * direction <= 0)
			return false;

		p = skip_space(end);
		if (*p != (i < n - 1 ? ',' : '\0'))
			return false;
		p++;
	}
	return true;
}
