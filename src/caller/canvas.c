/*-------------------------------------------------------------------------
 *
 * canvas.c
 *		What a screen is drawn with: bars, columns of eight heights, figures
 *		that may be unknown.
 *
 *		Most encodings have no block characters, so everything is drawn in
 *		ASCII as well.  This file does not know what is drawn.
 *
 *-------------------------------------------------------------------------
 */
#include "canvas.h"

#include "text.h"

/* What most encodings lack, in UTF8. */
#define FULL_BLOCK "\342\226\210"
#define LIGHT_BLOCK "\342\226\221"
#define AT_MOST "\342\211\244"

static const char *const block_levels[] = {
	"\342\226\201", "\342\226\202", "\342\226\203", "\342\226\204",
	"\342\226\205", "\342\226\206", "\342\226\207", "\342\226\210"
};
static const char ascii_levels[] = ".:-=+*#@";

DmuCanvas  *
dmu_canvas_make(void)
{
	DmuCanvas  *canvas = palloc(sizeof(DmuCanvas));

	initStringInfo(&canvas->text);
	canvas->blocks = dmu_text_has(FULL_BLOCK LIGHT_BLOCK);
	canvas->levels = true;
	for (int i = 0; i < (int) lengthof(block_levels); i++)
		canvas->levels = canvas->levels && dmu_text_has(block_levels[i]);
	canvas->at_most = dmu_text_has(AT_MOST) ? AT_MOST : "<=";
	return canvas;
}

bool
dmu_canvas_is_known(int64 figure)
{
	return figure != DMU_UNKNOWN;
}

const char *
dmu_canvas_number(int64 figure)
{
	return dmu_canvas_is_known(figure) ? dmu_text_number(figure) : "-";
}

const char *
dmu_canvas_duration(int64 usec)
{
	return dmu_canvas_is_known(usec) ? dmu_text_duration(usec) : "-";
}

const char *
dmu_canvas_short_duration(int64 usec)
{
	return dmu_canvas_is_known(usec) ? dmu_text_short_duration(usec) : "-";
}

void
dmu_canvas_end_line(DmuCanvas *canvas)
{
	StringInfo	text = &canvas->text;

	while (text->len > 0 && text->data[text->len - 1] == ' ')
		text->data[--text->len] = '\0';
	appendStringInfoChar(text, '\n');
}

void
dmu_canvas_enumerate(DmuCanvas *canvas, int start, const char *part)
{
	if (canvas->text.len > start)
		appendStringInfoString(&canvas->text, ", ");
	appendStringInfoString(&canvas->text, part);
}

int
dmu_canvas_bar(DmuCanvas *canvas, int64 part, int64 whole, int64 most, int width)
{
	int64		length;
	int64		filled;

	if (most <= 0 || whole < 0)
		return 0;
	length = (width * whole + most - 1) / most;
	if (part >= whole)
		filled = length;
	else if (length == 1)
		filled = 2 * part >= whole ? 1 : 0;
	else
		filled = Min((length * part + whole - 1) / whole, length - 1);

	for (int64 i = 0; i < length; i++)
	{
		if (canvas->blocks)
			appendStringInfoString(&canvas->text,
								   i < filled ? FULL_BLOCK : LIGHT_BLOCK);
		else
			appendStringInfoChar(&canvas->text, i < filled ? '#' : '.');
	}
	return (int) length;
}

void
dmu_canvas_levels(DmuCanvas *canvas, const int64 *samples, int nsamples)
{
	int64		most = 0;

	for (int i = 0; i < nsamples; i++)
		most = Max(most, samples[i]);
	for (int i = 0; i < nsamples; i++)
	{
		int64		sample = samples[i];
		int			level;

		if (sample <= 0)
		{
			appendStringInfoChar(&canvas->text, ' ');
			continue;
		}
		level = (int) ((8 * sample + most - 1) / most) - 1;
		if (canvas->levels)
			appendStringInfoString(&canvas->text, block_levels[level]);
		else
			appendStringInfoChar(&canvas->text, ascii_levels[level]);
	}
}
