/*-------------------------------------------------------------------------
 *
 * picture.c
 *		One cycle on one screen, drawn from figures: at most 80 columns wide.
 *
 *		Most encodings have no block characters, so everything is drawn in
 *		ASCII as well.  This file reads no table and asks for no right.
 *
 *-------------------------------------------------------------------------
 */
#include "picture.h"

#include "lib/stringinfo.h"
#include "text.h"

/* Columns of the bars. */
#define PROGRESS_WIDTH 46
#define PRIORITY_WIDTH 12
#define HISTOGRAM_WIDTH 54
#define HISTOGRAM_BESIDE 20

/* What a line of the histogram has left of its bar. */
#define HISTOGRAM_LEFT 24

#define HISTOGRAM_LINES 7

#define USEC INT64CONST(1)
#define MSEC (1000 * USEC)
#define SEC (1000 * MSEC)
#define MINUTE (60 * SEC)
#define HOUR (60 * MINUTE)

/* Bounds of a histogram, from fine to coarse; each ends with 0. */
static const int64 fine_scale[] = {
	10 * USEC, 20 * USEC, 50 * USEC, 100 * USEC, 200 * USEC, 500 * USEC,
	1 * MSEC, 2 * MSEC, 5 * MSEC, 10 * MSEC, 20 * MSEC, 50 * MSEC,
	100 * MSEC, 200 * MSEC, 500 * MSEC, 1 * SEC, 2 * SEC, 5 * SEC, 10 * SEC,
	20 * SEC, 30 * SEC, 1 * MINUTE, 2 * MINUTE, 5 * MINUTE, 10 * MINUTE,
	20 * MINUTE, 30 * MINUTE, 1 * HOUR, 2 * HOUR, 5 * HOUR, 10 * HOUR,
	20 * HOUR, 50 * HOUR, 0
};
static const int64 medium_scale[] = {
	10 * USEC, 30 * USEC, 100 * USEC, 300 * USEC, 1 * MSEC, 3 * MSEC,
	10 * MSEC, 30 * MSEC, 100 * MSEC, 300 * MSEC, 1 * SEC, 3 * SEC, 10 * SEC,
	30 * SEC, 1 * MINUTE, 5 * MINUTE, 15 * MINUTE, 1 * HOUR, 5 * HOUR,
	50 * HOUR, 0
};
static const int64 coarse_scale[] = {
	100 * USEC, 1 * MSEC, 10 * MSEC, 100 * MSEC, 1 * SEC, 10 * SEC,
	1 * MINUTE, 10 * MINUTE, 1 * HOUR, 50 * HOUR, 0
};
static const int64 *const scales[] = {fine_scale, medium_scale, coarse_scale};

/* Where the lines are collected. */
typedef struct Canvas
{
	StringInfoData text;
	bool		blocks;			/* full and light ones, for bars */
	bool		levels;			/* those of eight heights */
	bool		at_most;		/* the sign of it */
} Canvas;

/* What most encodings lack, in UTF8. */
#define FULL_BLOCK "\342\226\210"
#define LIGHT_BLOCK "\342\226\221"
#define AT_MOST "\342\211\244"

static const char *const block_levels[] = {
	"\342\226\201", "\342\226\202", "\342\226\203", "\342\226\204",
	"\342\226\205", "\342\226\206", "\342\226\207", "\342\226\210"
};
static const char ascii_levels[] = ".:-=+*#@";

static bool
is_known(int64 figure)
{
	return figure != DMU_UNKNOWN;
}

static const char *
number(int64 figure)
{
	return is_known(figure) ? dmu_text_number(figure) : "-";
}

static const char *
duration(int64 usec)
{
	return is_known(usec) ? dmu_text_duration(usec) : "-";
}

static const char *
short_duration(int64 usec)
{
	return is_known(usec) ? dmu_text_short_duration(usec) : "-";
}

/* Ends the line, without blanks before its end. */
static void
end_line(Canvas *canvas)
{
	StringInfo	text = &canvas->text;

	while (text->len > 0 && text->data[text->len - 1] == ' ')
		text->data[--text->len] = '\0';
	appendStringInfoChar(text, '\n');
}

/* Adds a part of an enumeration that began at "start". */
static void
enumerate(Canvas *canvas, int start, const char *part)
{
	if (canvas->text.len > start)
		appendStringInfoString(&canvas->text, ", ");
	appendStringInfoString(&canvas->text, part);
}

/*
 * A bar of which "part" is filled in, of "width" characters where "whole" is
 * "most".  What is not nothing has a character, and what is not all lacks one.
 * Returns how many characters it has.
 */
static int
draw_bar(Canvas *canvas, int64 part, int64 whole, int64 most, int width)
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

/* What became of it, in the first line. */
static char *
describe_end(const DmuPicture *picture)
{
	const char *how = picture->status;

	if (picture->lives)
		return psprintf("%s since %s", picture->phase, duration(picture->since));
	if (strcmp(how, "running") == 0)
		return pstrdup("left running when it died, the next cycle will mark it as aborted");
	if (strcmp(how, "aborted") == 0)
		return pstrdup(how);
	if (strcmp(how, "time_limit") == 0)
		how = "stopped at its time limit";
	return psprintf("%s after %s", how, duration(picture->elapsed));
}

static void
draw_request(Canvas *canvas, const DmuPicture *picture)
{
	StringInfo	text = &canvas->text;
	int			start;

	appendStringInfoString(text, "  asked for ");
	start = text->len;
	if (is_known(picture->max_users))
		enumerate(canvas, start, psprintf(ngettext("up to %s datamart user",
												   "up to %s datamart users",
												   (unsigned long) picture->max_users),
										  number(picture->max_users)));
	if (is_known(picture->workers_requested))
	{
		enumerate(canvas, start, psprintf(ngettext("%s worker", "%s workers",
												   (unsigned long) picture->workers_requested),
										  number(picture->workers_requested)));
		if (is_known(picture->workers) && is_known(picture->found) &&
			picture->workers < picture->workers_requested &&
			picture->workers < picture->found)
			appendStringInfo(text, " (got " INT64_FORMAT ")", picture->workers);
	}
	if (is_known(picture->time_limit))
		enumerate(canvas, start, psprintf("at most %s",
										  duration(picture->time_limit)));
	appendStringInfoChar(text, '\n');
}

static void
draw_progress_bar(Canvas *canvas, const DmuPicture *picture)
{
	appendStringInfoString(&canvas->text, "  [");
	(void) draw_bar(canvas, picture->done, picture->found, picture->found,
			 PROGRESS_WIDTH);
	appendStringInfo(&canvas->text, "] " INT64_FORMAT " %%",
					 100 * picture->done / picture->found);
	if (is_known(picture->time_left))
		appendStringInfo(&canvas->text, ", about %s left",
						 duration(picture->time_left));
	appendStringInfoString(&canvas->text, "\n\n");
}

static void
draw_outcomes(Canvas *canvas, const DmuPicture *picture)
{
	StringInfo	text = &canvas->text;
	int			start;

	appendStringInfoString(text, "    backlog      found  processed     failed    skipped   deferred\n");
	appendStringInfo(text, "%11s%11s", number(picture->backlog), number(picture->found));
	for (int o = 0; o < DMU_NOUTCOMES; o++)
		appendStringInfo(text, "%11s", number(picture->outcomes[o]));
	appendStringInfoChar(text, '\n');

	if (is_known(picture->found) && picture->found > 0 && !picture->lives)
	{
		appendStringInfoString(text, "  ");
		start = text->len;
		if (is_known(picture->users_per_minute))
			enumerate(canvas, start, psprintf("%s processed a minute",
											  number(picture->users_per_minute)));
		if (picture->success_rate != NULL)
			enumerate(canvas, start, psprintf("%s %% succeeded",
											  picture->success_rate));
		if (is_known(picture->prioritisation_time))
			enumerate(canvas, start, psprintf("queue filled in %s",
											  duration(picture->prioritisation_time)));
		end_line(canvas);
	}

	if (is_known(picture->backlog))
	{
		int64		waiting = picture->backlog;

		if (is_known(picture->outcomes[DMU_PROCESSED]))
			waiting -= picture->outcomes[DMU_PROCESSED];
		if (is_known(picture->outcomes[DMU_SKIPPED]))
			waiting -= picture->outcomes[DMU_SKIPPED];
		if (waiting >= 0)
			appendStringInfo(text,
							 ngettext("  %s of the backlog still waits; held by back-off now: %s\n",
									  "  %s of the backlog still wait; held by back-off now: %s\n",
									  (unsigned long) waiting),
							 number(waiting), number(picture->held));
	}
}

/* What was asked, and what came of it. */
static void
draw_head(Canvas *canvas, const DmuPicture *picture)
{
	StringInfo	text = &canvas->text;

	appendStringInfo(text, "Cycle " INT64_FORMAT ": %s\n",
					 picture->cycle_id, describe_end(picture));
	if (picture->message_hidden)
		appendStringInfoString(text, "  (the message is for those who may read datamart_users_cycles)\n");
	else if (picture->message != NULL)
		appendStringInfo(text, "  %s\n",
						 dmu_text_line(picture->message, 78));
	appendStringInfo(text, "  started %s by %s\n", picture->started_at,
					 dmu_text_line(picture->role_name, 40));
	appendStringInfo(text, "  users table %s\n",
					 dmu_text_line(picture->users_table, 66));
	draw_request(canvas, picture);
	appendStringInfoChar(text, '\n');
	if (picture->lives && is_known(picture->found) && picture->found > 0)
		draw_progress_bar(canvas, picture);
	draw_outcomes(canvas, picture);
}

static void
draw_priorities(Canvas *canvas, const DmuPicture *picture)
{
	int64		most = 0;

	if (picture->npriorities == 0)
		return;
	appendStringInfoString(&canvas->text, "\nBy priority       found  processed   failed    average     longest\n");
	for (int i = 0; i < picture->npriorities; i++)
		most = Max(most, picture->priorities[i].found);
	for (int i = 0; i < picture->npriorities; i++)
	{
		const DmuPicturePriority *p = &picture->priorities[i];
		int64		average = p->done > 0 ? p->total_usec / p->done : DMU_UNKNOWN;

		appendStringInfo(&canvas->text, "  %-10s%11s%11s%9s%11s%12s  ", p->name,
						 number(p->found), number(p->processed),
						 number(p->failed), duration(average),
						 duration(p->max_usec));
		(void) draw_bar(canvas, p->processed, p->found, most, PRIORITY_WIDTH);
		end_line(canvas);
	}
}

/* The first bound that is not below a time; the last one for what is beyond. */
static int
find_bound(const int64 *bounds, int64 usec)
{
	int			i = 0;

	while (bounds[i] < usec && bounds[i + 1] != 0)
		i++;
	return i;
}

static bool
has_percentiles(const DmuPicture *picture)
{
	for (int i = 0; i < picture->npriorities; i++)
	{
		if (is_known(picture->priorities[i].p50))
			return true;
	}
	return false;
}

/*
 * One of the lines beside the histogram: their heading is number 0, and then
 * there is one for each priority.
 */
static void
draw_percentiles(Canvas *canvas, const DmuPicture *picture, int line,
				 int64 blanks)
{
	const DmuPicturePriority *p;

	if (line > picture->npriorities)
		return;
	appendStringInfoSpaces(&canvas->text, (int) blanks);
	if (line == 0)
	{
		appendStringInfo(&canvas->text, "  %-10s%8s%8s%8s", "", "half", "95 %", "99 %");
		return;
	}
	p = &picture->priorities[line - 1];
	appendStringInfo(&canvas->text, "  %-10s%8s%8s%8s", p->name,
					 short_duration(p->p50), short_duration(p->p95),
					 short_duration(p->p99));
}

/*
 * The histogram, with the percentiles by priority on its right side, in at most
 * seven lines: with the finest of three scales for
 * which that is enough.  If even the coarsest takes more, what is fastest goes
 * together.
 */
static void
draw_histogram(Canvas *canvas, const DmuPicture *picture)
{
	bool		by_priority = has_percentiles(picture);
	int			width = by_priority ? HISTOGRAM_BESIDE : HISTOGRAM_WIDTH;
	int			drawn;
	const int64 *bounds;
	int64		sums[HISTOGRAM_LINES] = {0};
	int64		most = 0;
	int			first;
	int			last;

	for (int s = 0; s < (int) lengthof(scales); s++)
	{
		bounds = scales[s];
		first = find_bound(bounds, picture->bucket_upto[0]);
		last = find_bound(bounds, picture->bucket_upto[picture->nbuckets - 1]);
		if (last - first < HISTOGRAM_LINES)
			break;
	}
	first = Max(first, last - HISTOGRAM_LINES + 1);

	for (int b = 0; b < picture->nbuckets; b++)
	{
		int			line = find_bound(bounds, picture->bucket_upto[b]) - first;

		line = Max(line, 0);
		if (line < HISTOGRAM_LINES)
			sums[line] += picture->bucket_count[b];
	}
	for (int line = 0; line <= last - first; line++)
		most = Max(most, sums[line]);

	for (int line = 0; line <= last - first; line++)
	{
		appendStringInfo(&canvas->text, "  %s %-7s%*s  ",
						 canvas->at_most ? AT_MOST : "<=",
						 duration(bounds[first + line]),
						 canvas->at_most ? 11 : 10, number(sums[line]));
		drawn = draw_bar(canvas, sums[line], sums[line], most, width);
		if (by_priority)
			draw_percentiles(canvas, picture, line, width - drawn);
		end_line(canvas);
	}
	if (!by_priority)
		return;
	for (int line = last - first + 1; line <= picture->npriorities; line++)
	{
		draw_percentiles(canvas, picture, line, HISTOGRAM_LEFT + width);
		end_line(canvas);
	}
}

/* One character for each sample, higher for more; a blank for nothing at all. */
static void
draw_sparkline(Canvas *canvas, const DmuPicture *picture)
{
	int64		most = 0;

	appendStringInfoString(&canvas->text, "  ");
	for (int i = 0; i < picture->nsamples; i++)
		most = Max(most, picture->samples[i]);
	for (int i = 0; i < picture->nsamples; i++)
	{
		int64		sample = picture->samples[i];
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
	end_line(canvas);
}

/* How the work was spread: over priorities, refresh times, and the cycle. */
static void
draw_profile(Canvas *canvas, const DmuPicture *picture)
{
	draw_priorities(canvas, picture);

	if (picture->nbuckets > 0)
	{
		appendStringInfo(&canvas->text, "\nRefresh times: half within %s, 95 %% within %s, 99 %% within %s\n",
						 duration(picture->p50), duration(picture->p95),
						 duration(picture->p99));
		draw_histogram(canvas, picture);
	}

	/* Less than that is no picture. */
	if (picture->nsamples >= 3)
	{
		appendStringInfo(&canvas->text, "\nDatamart users per second over the cycle, a column is %s, the highest %s\n",
						 duration(picture->sample_width), picture->highest);
		draw_sparkline(canvas, picture);
	}
}

/* What needs a second look: failures, and the slowest. */
static void
draw_tail(Canvas *canvas, const DmuPicture *picture)
{
	StringInfo	text = &canvas->text;
	bool		too_many = picture->nkinds > DMU_PICTURE_KINDS;
	int			nkinds = too_many ? DMU_PICTURE_KINDS - 1 : picture->nkinds;

	if (nkinds > 0)
		appendStringInfo(text, "\nFailures that are still to be overcome%s\n",
						 picture->kinds[0].message != NULL ?
						 ", with a message of each kind" : "");
	for (int i = 0; i < nkinds; i++)
	{
		const DmuPictureKind *kind = &picture->kinds[i];

		appendStringInfo(text, "  %s%9s  %s", kind->sqlstate, number(kind->number),
						 kind->message == NULL ? "" :
						 dmu_text_line(kind->message, 62));
		end_line(canvas);
	}
	if (too_many)
		appendStringInfo(text, "  and %d other SQLSTATEs\n", picture->nkinds - nkinds);

	if (picture->nslowest > 0)
		appendStringInfoString(text, "\nThe slowest datamart users\n");
	for (int i = 0; i < picture->nslowest; i++)
	{
		const DmuPictureSlow *slow = &picture->slowest[i];

		appendStringInfo(text, "  %12s  %-10s%12s  %s\n",
						 is_known(slow->dimension_user_id) ?
						 psprintf(INT64_FORMAT, slow->dimension_user_id) : "-",
						 slow->priority, duration(slow->usec), slow->outcome);
	}
}

char	   *
dmu_picture_draw(const DmuPicture *picture)
{
	Canvas		canvas = {
		.blocks = dmu_text_has(FULL_BLOCK LIGHT_BLOCK),
		.levels = true,
		.at_most = dmu_text_has(AT_MOST)
	};

	for (int i = 0; i < (int) lengthof(block_levels); i++)
		canvas.levels = canvas.levels && dmu_text_has(block_levels[i]);
	initStringInfo(&canvas.text);
	draw_head(&canvas, picture);
	draw_profile(&canvas, picture);
	draw_tail(&canvas, picture);

	/* Lines are divided by line breaks, not ended by them. */
	canvas.text.data[--canvas.text.len] = '\0';
	return canvas.text.data;
}
