/*-------------------------------------------------------------------------
 *
 * text.c
 *		Figures and foreign texts, made fit for a line that people read.
 *
 *		Messages and names come from whoever could write them.  On a terminal
 *		they must not draw lines of their own, hide a part of themselves, or
 *		turn around what stands beside them.  Knows no catalog and nothing of
 *		cycles.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "text.h"

typedef struct CharRange
{
	pg_wchar	first;
	pg_wchar	last;
} CharRange;

/* White space and controls of Unicode beyond ASCII. */
static const CharRange spaces[] = {
	{0x0080, 0x00A0}, {0x1680, 0x1680}, {0x2000, 0x200A}, {0x2028, 0x2029},
	{0x202F, 0x202F}, {0x205F, 0x205F}, {0x3000, 0x3000}
};

/*
 * Characters of Unicode that are not seen themselves: those of category Cf,
 * among them all that change directions, and those that a font is to ignore.
 */
static const CharRange invisibles[] = {
	{0x00AD, 0x00AD}, {0x034F, 0x034F}, {0x0600, 0x0605}, {0x061C, 0x061C},
	{0x06DD, 0x06DD}, {0x070F, 0x070F}, {0x0890, 0x0891}, {0x08E2, 0x08E2},
	{0x115F, 0x1160}, {0x17B4, 0x17B5}, {0x180B, 0x180F}, {0x200B, 0x200F},
	{0x202A, 0x202E}, {0x2060, 0x206F}, {0x2800, 0x2800}, {0x3164, 0x3164},
	{0xFE00, 0xFE0F}, {0xFEFF, 0xFEFF}, {0xFFA0, 0xFFA0}, {0xFFF0, 0xFFFB},
	{0x110BD, 0x110BD}, {0x110CD, 0x110CD}, {0x13430, 0x1343F},
	{0x1BCA0, 0x1BCA3}, {0x1D173, 0x1D17A}, {0xE0000, 0xE0FFF}
};

static bool
is_within(pg_wchar character, const CharRange *ranges, int n)
{
	for (int i = 0; i < n; i++)
	{
		if (character >= ranges[i].first && character <= ranges[i].last)
			return true;
	}
	return false;
}

/* What stands for a character: itself ('\0'), a blank, or a question mark. */
static char
replacement(const char *character, bool ascii)
{
	unsigned char byte = (unsigned char) *character;
	pg_wchar	code;

	if (byte <= ' ' || byte == 0x7F)
		return ' ';
	if (!IS_HIGHBIT_SET(byte))
		return '\0';
	if (ascii)
		return '?';

	code = utf8_to_unicode((const unsigned char *) character);
	if (is_within(code, spaces, lengthof(spaces)))
		return ' ';
	return is_within(code, invisibles, lengthof(invisibles)) ? '?' : '\0';
}

char	   *
dmu_text_line(const char *text, int width, bool ascii)
{
	StringInfoData line;
	bool		blank = false;
	int			keep;

	if (GetDatabaseEncoding() != PG_UTF8)
		ascii = true;

	initStringInfo(&line);
	for (int length; *text != '\0'; text += length)
	{
		char		instead = replacement(text, ascii);

		length = pg_mblen(text);
		if (instead == '\0')
			appendBinaryStringInfo(&line, text, length);
		else if (instead != ' ' || !blank)
			appendStringInfoChar(&line, instead);
		blank = (instead == ' ');
	}

	if (width == 0 || pg_mbstrlen(line.data) <= width)
		return line.data;
	keep = pg_mbcharcliplen(line.data, line.len, width - 3);
	line.data[keep] = '\0';
	line.len = keep;
	appendStringInfoString(&line, "...");
	return line.data;
}

/* A number of tenths, with a decimal where it is not 0. */
static char *
decimal(int64 tenths, const char *unit)
{
	if (tenths % 10 == 0)
		return psprintf(INT64_FORMAT " %s", tenths / 10, unit);
	return psprintf(INT64_FORMAT ".%d %s", tenths / 10, (int) (tenths % 10), unit);
}

/* Two units, of which the smaller one may be 0. */
static char *
compound(int64 number, int64 per_unit, const char *unit, const char *smaller)
{
	if (number % per_unit == 0)
		return psprintf(INT64_FORMAT " %s", number / per_unit, unit);
	return psprintf(INT64_FORMAT " %s " INT64_FORMAT " %s",
					number / per_unit, unit, number % per_unit, smaller);
}

char	   *
dmu_text_duration(int64 usec)
{
	if (usec < 950)
		return psprintf(INT64_FORMAT " us", usec);
	if (usec < 9950)
		return decimal((usec + 50) / 100, "ms");
	if (usec < 999500)
		return psprintf(INT64_FORMAT " ms", (usec + 500) / 1000);
	if (usec < INT64CONST(59950000))
		return decimal((usec + 50000) / 100000, "s");
	if (usec < INT64CONST(3599500000))
		return compound((usec + 500000) / 1000000, 60, "min", "s");
	return compound(usec / 60000000 + (usec % 60000000 >= 30000000 ? 1 : 0),
					60, "h", "min");
}

char	   *
dmu_text_number(int64 number)
{
	char		digits[32];
	StringInfoData text;
	int			n;

	n = snprintf(digits, sizeof(digits), INT64_FORMAT, number);
	initStringInfo(&text);
	for (int i = 0; i < n; i++)
	{
		appendStringInfoChar(&text, digits[i]);
		if (i < n - 1 && (n - 1 - i) % 3 == 0 && digits[i] != '-')
			appendStringInfoChar(&text, ',');
	}
	return text.data;
}
