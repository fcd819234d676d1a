/*-------------------------------------------------------------------------
 *
 * text.c
 *		Figures and foreign texts, made fit for a line that people read.
 *
 *		Messages and names come from whoever could write them.  On a terminal
 *		they must not draw lines of their own, hide a part of themselves, or
 *		turn around what stands beside them, nor keep the line from reaching
 *		a client that lacks a character.  Of the catalogs it knows only those
 *		of encodings, and nothing of cycles.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_conversion.h"
#include "catalog/pg_namespace.h"
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

/* Two encodings, and what leads from one to the other. */
typedef struct Conversion
{
	int			from;
	int			to;
	Oid			procedure;		/* InvalidOid: there is none */
} Conversion;

/*
 * How to look at the characters of a text.  What a database in SQL_ASCII holds
 * has no encoding of its own; it goes to the client as it is, which takes it
 * for its own encoding.
 */
typedef struct Alphabet
{
	int			encoding;		/* of the text, PG_SQL_ASCII if unknown */
	Conversion	to_client;
	Conversion	to_unicode;
} Alphabet;

/* A character at the most, in any encoding. */
#define MAX_CHARACTER (MAX_MULTIBYTE_CHAR_LEN * MAX_CONVERSION_GROWTH + 1)

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

/*
 * The server's own conversion, whatever others the search_path leads to: it is
 * called with texts of others, and by superusers too.
 */
static Conversion
find_conversion(int from, int to)
{
	Conversion	conversion = {.from = from,.to = to};

	if (from != to && from != PG_SQL_ASCII && to != PG_SQL_ASCII)
		conversion.procedure = FindDefaultConversion(PG_CATALOG_NAMESPACE, from, to);
	return conversion;
}

static Alphabet
find_alphabet(void)
{
	int			client = pg_get_client_encoding();
	Alphabet	alphabet = {.encoding = GetDatabaseEncoding()};

	if (alphabet.encoding == PG_SQL_ASCII)
		alphabet.encoding = client;
	alphabet.to_client = find_conversion(alphabet.encoding, client);
	alphabet.to_unicode = find_conversion(alphabet.encoding, PG_UTF8);
	return alphabet;
}

/* One character in the other encoding; false if that does not have it. */
static bool
convert(const Conversion *conversion, const char *character, int length,
		unsigned char *result)
{
	if (conversion->from == conversion->to)
	{
		memcpy(result, character, length);
		result[length] = '\0';
		return true;
	}
	return OidIsValid(conversion->procedure) &&
		pg_do_encoding_conversion_buf(conversion->procedure,
									  conversion->from, conversion->to,
									  (unsigned char *) unconstify(char *, character),
									  length, result, MAX_CHARACTER, true) == length;
}

/*
 * What stands for a character of "length" bytes: itself ('\0'), a blank, or a
 * question mark.
 */
static char
replacement(const Alphabet *alphabet, const char *character, int length)
{
	unsigned char byte = (unsigned char) *character;
	unsigned char converted[MAX_CHARACTER];
	bool		space = false;

	if (byte <= ' ' || byte == 0x7F)
		return ' ';
	if (!IS_HIGHBIT_SET(byte))
		return '\0';

	/* In some encodings one character is several of Unicode. */
	if (alphabet->encoding == PG_SQL_ASCII ||
		!convert(&alphabet->to_unicode, character, length, converted))
		return '?';
	for (unsigned char *c = converted; *c != '\0'; c += pg_encoding_mblen(PG_UTF8, (char *) c))
	{
		pg_wchar	code = utf8_to_unicode(c);

		if (is_within(code, invisibles, lengthof(invisibles)))
			return '?';
		space |= is_within(code, spaces, lengthof(spaces));
	}
	if (space)
		return ' ';
	return convert(&alphabet->to_client, character, length, converted) ? '\0' : '?';
}

/*
 * Bytes of the character at the beginning of a text, 0 if they are none.  Only
 * what has been checked when it came into the database is known to be right.
 */
static int
character_length(const Alphabet *alphabet, const char *text)
{
	if (!IS_HIGHBIT_SET(*text))
		return 1;
	return Max(pg_encoding_verifymbchar(alphabet->encoding, text, strnlen(text, MAX_MULTIBYTE_CHAR_LEN)), 0);
}

char	   *
dmu_text_line(const char *text, int width)
{
	Alphabet	alphabet = find_alphabet();
	StringInfoData line;
	bool		blank = false;
	int			columns = 0;
	int			keep = 0;

	initStringInfo(&line);
	for (int length; *text != '\0'; text += length)
	{
		char		instead = '?';

		length = character_length(&alphabet, text);
		if (length > 0)
			instead = replacement(&alphabet, text, length);
		else
			length = 1;

		if (instead == ' ' && blank)
			continue;
		blank = (instead == ' ');
		columns += instead != '\0' ? 1 :
			Max(pg_encoding_dsplen(alphabet.encoding, text), 0);
		if (instead == '\0')
			appendBinaryStringInfo(&line, text, length);
		else
			appendStringInfoChar(&line, instead);

		if (columns <= width - 3)
			keep = line.len;
		if (width > 0 && columns > width)
		{
			line.data[keep] = '\0';
			line.len = keep;
			appendStringInfoString(&line, "...");
			break;
		}
	}
	return line.data;
}

char	   *
dmu_text_sendable(const char *text)
{
	Alphabet	alphabet = find_alphabet();
	unsigned char converted[MAX_CHARACTER];
	StringInfoData result;

	initStringInfo(&result);
	for (int length; *text != '\0'; text += length)
	{
		length = character_length(&alphabet, text);
		if (!IS_HIGHBIT_SET(*text) ||
			(length > 0 && alphabet.to_client.to == PG_SQL_ASCII) ||
			(length > 0 && convert(&alphabet.to_client, text, length, converted)))
			appendBinaryStringInfo(&result, text, length);
		else
			appendStringInfoChar(&result, '?');
		length = Max(length, 1);
	}
	return result.data;
}

bool
dmu_text_has(const char *characters)
{
	Alphabet	alphabet = find_alphabet();
	unsigned char converted[MAX_CHARACTER];

	if (GetDatabaseEncoding() != PG_UTF8)
		return false;
	for (int length; *characters != '\0'; characters += length)
	{
		length = pg_mblen(characters);
		if (!convert(&alphabet.to_client, characters, length, converted))
			return false;
	}
	return true;
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
dmu_text_short_duration(int64 usec)
{
	int64		seconds = usec / 1000000;

	if (usec < INT64CONST(59950000))
		return dmu_text_duration(usec);
	if (seconds < 597)
		return decimal((seconds + 3) / 6, "min");
	if (seconds < 3570)
		return psprintf(INT64_FORMAT " min", (seconds + 30) / 60);
	if (seconds < 35820)
		return decimal((seconds + 180) / 360, "h");
	return psprintf(INT64_FORMAT " h", (seconds + 1800) / 3600);
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
