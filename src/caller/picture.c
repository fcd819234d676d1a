/*-------------------------------------------------------------------------
 *
 * picture.c
 *		One cycle on one screen, drawn from figures: at most 80 columns wide.
 *
 *		This file reads no table and asks for no right.
 *
 *-------------------------------------------------------------------------
 */
#include "picture.h"

#include "canvas.h"
#include "mb/pg_wchar.h"
#include "text.h"

/* Columns of the bars. */
#define PROGRESS_WIDTH 46
#define PRIORITY_WIDTH 12
#define HISTOGRAM_WIDTH 54
#define HISTOGRAM_BESIDE 20

/* What a line of the histogram has left of its bar. */
#define HISTOGRAM_LEFT 24

#define HISTOGRAM_LINES 7

/* Idle time is told from this part of all time on: a hundredth. */
#define IDLE_SHOWN 100

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

/* What became of it, in the first line. */
static char *
describe_end(const DmuPicture *picture)
{
	const char *how = picture->status;

	if (picture->lives)
		return psprintf("%s since %s", picture->phase, dmu_canvas_duration(picture->since));
	if (strcmp(how, "running") == 0)
		return pstrdup("left running when it died, the next cycle will mark it as aborted");
	if (strcmp(how, "aborted") == 0 && dmu_canvas_is_known(picture->counted))
		return psprintf("aborted, its counts are those after %s",
						dmu_canvas_duration(picture->counted));
	if (strcmp(how, "aborted") == 0)
		return pstrdup(how);
	if (strcmp(how, "time_limit") == 0)
		how = "stopped at its time limit";
	return psprintf("%s after %s", how, dmu_canvas_duration(picture->elapsed));
}

static void
draw_request(DmuCanvas *canvas, const DmuPicture *picture)
{
	StringInfo	text = &canvas->text;
	int			start;

	appendStringInfoString(text, "  asked for ");
	start = text->len;
	if (dmu_canvas_is_known(picture->max_users))
		dmu_canvas_enumerate(canvas, start, psprintf(ngettext("up to %s datamart user",
															  "up to %s datamart users",
															  (unsigned long) picture->max_users),
													 dmu_canvas_number(picture->max_users)));
	if (dmu_canvas_is_known(picture->workers_requested))
	{
		dmu_canvas_enumerate(canvas, start, psprintf(ngettext("%s worker", "%s workers",
															  (unsigned long) picture->workers_requested),
													 dmu_canvas_number(picture->workers_requested)));
		if (dmu_canvas_is_known(picture->workers) && dmu_canvas_is_known(picture->found) &&
			picture->workers < picture->workers_requested &&
			picture->workers < picture->found)
			appendStringInfo(text, " (got " INT64_FORMAT ")", picture->workers);
	}
	if (dmu_canvas_is_known(picture->time_limit))
		dmu_canvas_enumerate(canvas, start, psprintf("at most %s",
													 dmu_canvas_duration(picture->time_limit)));
	appendStringInfoChar(text, '\n');
}

static void
draw_progress_bar(DmuCanvas *canvas, const DmuPicture *picture)
{
	appendStringInfoString(&canvas->text, "  [");
	(void) dmu_canvas_bar(canvas, picture->done, picture->found, picture->found,
						  PROGRESS_WIDTH);
	appendStringInfo(&canvas->text, "] " INT64_FORMAT " %%",
					 100 * picture->done / picture->found);
	if (dmu_canvas_is_known(picture->time_left))
		appendStringInfo(&canvas->text, ", about %s left",
						 dmu_canvas_duration(picture->time_left));
	appendStringInfoString(&canvas->text, "\n\n");
}

static void
draw_outcomes(DmuCanvas *canvas, const DmuPicture *picture)
{
	StringInfo	text = &canvas->text;
	int			start;

	appendStringInfoString(text, "    backlog      found  processed     failed    skipped   deferred\n");
	appendStringInfo(text, "%11s%11s", dmu_canvas_number(picture->backlog), dmu_canvas_number(picture->found));
	for (int o = 0; o < DMU_NOUTCOMES; o++)
		appendStringInfo(text, "%11s", dmu_canvas_number(picture->outcomes[o]));
	appendStringInfoChar(text, '\n');

	if (dmu_canvas_is_known(picture->found) && picture->found > 0 && !picture->lives)
	{
		appendStringInfoString(text, "  ");
		start = text->len;
		if (dmu_canvas_is_known(picture->users_per_minute))
			dmu_canvas_enumerate(canvas, start, psprintf("%s processed a minute",
														 dmu_canvas_number(picture->users_per_minute)));
		if (picture->success_rate != NULL)
			dmu_canvas_enumerate(canvas, start, psprintf("%s %% succeeded",
														 picture->success_rate));
		if (dmu_canvas_is_known(picture->prioritisation_time))
			dmu_canvas_enumerate(canvas, start, psprintf("queue filled in %s",
														 dmu_canvas_duration(picture->prioritisation_time)));
		dmu_canvas_end_line(canvas);
	}

	if (dmu_canvas_is_known(picture->backlog))
	{
		int64		waiting = picture->backlog;

		if (dmu_canvas_is_known(picture->outcomes[DMU_PROCESSED]))
			waiting -= picture->outcomes[DMU_PROCESSED];
		if (dmu_canvas_is_known(picture->outcomes[DMU_SKIPPED]))
			waiting -= picture->outcomes[DMU_SKIPPED];
		if (waiting >= 0)
			appendStringInfo(text,
							 ngettext("  %s of the backlog still waits; held by back-off now: %s%s\n",
									  "  %s of the backlog still wait; held by back-off now: %s%s\n",
									  (unsigned long) waiting),
							 dmu_canvas_number(waiting), dmu_canvas_number(picture->held),
							 dmu_canvas_is_known(picture->parked) && picture->parked > 0 ?
							 psprintf(", parked: %s", dmu_canvas_number(picture->parked)) : "");
	}
}

/* With too few cycles before it nothing can be said. */
static void
draw_unusual(DmuCanvas *canvas, const DmuPicture *picture)
{
	StringInfoData line;

	if (picture->lives || picture->compared < DMU_PICTURE_COMPARED)
		return;
	initStringInfo(&line);
	if (picture->nunusual == 0)
		appendStringInfo(&line, "nothing unusual beside the %s cycles before",
						 dmu_canvas_number(picture->compared));
	else
		appendStringInfoString(&line, "unusual: ");
	for (int i = 0; i < picture->nunusual; i++)
	{
		const DmuPictureUnusual *unusual = &picture->unusual[i];
		const char *(*in_words) (int64) = unusual->is_time ? dmu_canvas_duration :
		dmu_canvas_number;
		const char *value = in_words(unusual->value);
		const char *part = psprintf("%s%s %s (median %s)", i > 0 ? ", " : "",
									unusual->measure, value,
									in_words(unusual->median));

		if (i > 0 && line.len + strlen(part) > 72)
		{
			appendStringInfoString(&line, ", ...");
			break;
		}
		appendStringInfoString(&line, part);
	}
	appendStringInfo(&canvas->text, "  %s\n", dmu_text_line(line.data, 78));
}

/* Who has called for it, where that says more than the role does. */
static void
draw_caller(DmuCanvas *canvas, const DmuPicture *picture)
{
	StringInfo	text = &canvas->text;
	bool		application = picture->application_name != NULL &&
	picture->application_name[0] != '\0';
	bool		other_role = picture->session_role != NULL &&
	strcmp(picture->session_role, picture->role_name) != 0;

	if (!application && !other_role)
		return;
	appendStringInfoString(text, "  called by ");
	if (application)
		appendStringInfo(text, "application %s", dmu_text_line(picture->application_name, 30));
	if (other_role)
		appendStringInfo(text, "%slogged in as %s", application ? ", " : "a session ",
						 dmu_text_line(picture->session_role, 20));
	appendStringInfoChar(text, '\n');
}

/* What the workers of a running cycle are at. */
static void
draw_workers(DmuCanvas *canvas, const DmuPicture *picture)
{
	StringInfo	text = &canvas->text;
	int			shown = Min(picture->nworkers, DMU_PICTURE_WORKERS);

	if (shown == 0)
		return;
	appendStringInfoString(text, "\nWorkers    pid  state      datamart user  priority        since  waits for\n");
	for (int i = 0; i < shown; i++)
	{
		const DmuPictureWorker *worker = &picture->running[i];

		appendStringInfo(text, "  %4d%8d  %-10.10s%14s  %-10s%11s  %s",
						 worker->number, worker->pid, worker->state,
						 dmu_canvas_is_known(worker->dimension_user_id) ?
						 psprintf(INT64_FORMAT, worker->dimension_user_id) : "-",
						 worker->priority != NULL ? worker->priority : "-",
						 dmu_canvas_short_duration(worker->usec),
						 worker->waits == NULL ? "" :
						 dmu_text_line(worker->waits, 15));
		dmu_canvas_end_line(canvas);
	}
	if (picture->nworkers > shown)
		appendStringInfo(text, ngettext("  and %d other\n", "  and %d others\n",
										picture->nworkers - shown),
						 picture->nworkers - shown);
}

/*
 * What the end of the cycle has cost, unless that is next to nothing.  It is
 * as long as the last refresh at the most, so that one is told.
 */
static void
draw_end(DmuCanvas *canvas, const DmuPicture *picture)
{
	StringInfo	text = &canvas->text;

	if (picture->planned_alone > 0)
		appendStringInfo(text,
						 ngettext("  %s datamart user was planned for alone\n",
								  "  %s datamart users were planned for alone\n",
								  (unsigned long) picture->planned_alone),
						 dmu_canvas_number(picture->planned_alone));
	if (!dmu_canvas_is_known(picture->idle_time) ||
		picture->idle_time * IDLE_SHOWN < picture->work_time ||
		picture->idle_time == 0 || picture->last.priority == NULL)
		return;
	appendStringInfo(text, "  workers idle at the end: %s of %s, while worker " INT64_FORMAT " was at\n",
					 dmu_canvas_duration(picture->idle_time),
					 dmu_canvas_duration(picture->work_time),
					 picture->last_worker);
	appendStringInfo(text, "  datamart user %s (%s, %s, %s)\n",
					 dmu_canvas_is_known(picture->last.dimension_user_id) ?
					 psprintf(INT64_FORMAT, picture->last.dimension_user_id) : "-",
					 picture->last.priority,
					 psprintf(ngettext("%s action", "%s actions",
									   (unsigned long) picture->last_actions),
							  dmu_canvas_number(picture->last_actions)),
					 dmu_canvas_duration(picture->last.usec));
}

/* What was asked, and what came of it. */
static void
draw_head(DmuCanvas *canvas, const DmuPicture *picture)
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
	draw_caller(canvas, picture);
	appendStringInfo(text, "  users table %s\n",
					 dmu_text_line(picture->users_table, 66));
	draw_request(canvas, picture);
	appendStringInfoChar(text, '\n');
	if (picture->lives && dmu_canvas_is_known(picture->found) && picture->found > 0)
		draw_progress_bar(canvas, picture);
	draw_outcomes(canvas, picture);
	draw_end(canvas, picture);
	draw_unusual(canvas, picture);
}

static void
draw_priorities(DmuCanvas *canvas, const DmuPicture *picture)
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
						 dmu_canvas_number(p->found), dmu_canvas_number(p->processed),
						 dmu_canvas_number(p->failed), dmu_canvas_duration(average),
						 dmu_canvas_duration(p->done > 0 ? p->max_usec : DMU_UNKNOWN));
		(void) dmu_canvas_bar(canvas, p->processed, p->found, most, PRIORITY_WIDTH);
		dmu_canvas_end_line(canvas);
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
		if (dmu_canvas_is_known(picture->priorities[i].p50))
			return true;
	}
	return false;
}

/*
 * One of the lines beside the histogram: their heading is number 0, and then
 * there is one for each priority.
 */
static void
draw_percentiles(DmuCanvas *canvas, const DmuPicture *picture, int line,
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
					 dmu_canvas_short_duration(p->p50), dmu_canvas_short_duration(p->p95),
					 dmu_canvas_short_duration(p->p99));
}

/*
 * The histogram, with the percentiles by priority on its right side, in at most
 * seven lines: with the finest of three scales for
 * which that is enough.  If even the coarsest takes more, what is fastest goes
 * together.
 */
static void
draw_histogram(DmuCanvas *canvas, const DmuPicture *picture)
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
						 canvas->at_most,
						 dmu_canvas_duration(bounds[first + line]),
						 12 - pg_mbstrlen(canvas->at_most), dmu_canvas_number(sums[line]));
		drawn = dmu_canvas_bar(canvas, sums[line], sums[line], most, width);
		if (by_priority)
			draw_percentiles(canvas, picture, line, width - drawn);
		dmu_canvas_end_line(canvas);
	}
	if (!by_priority)
		return;
	for (int line = last - first + 1; line <= picture->npriorities; line++)
	{
		draw_percentiles(canvas, picture, line, HISTOGRAM_LEFT + width);
		dmu_canvas_end_line(canvas);
	}
}

/* How the work was spread: over priorities, refresh times, and the cycle. */
static void
draw_profile(DmuCanvas *canvas, const DmuPicture *picture)
{
	draw_priorities(canvas, picture);

	if (picture->nbuckets > 0)
	{
		appendStringInfo(&canvas->text, "\nRefresh times: half within %s, 95 %% within %s, 99 %% within %s\n",
						 dmu_canvas_duration(picture->p50), dmu_canvas_duration(picture->p95),
						 dmu_canvas_duration(picture->p99));
		draw_histogram(canvas, picture);
	}

	/* Less than that is no picture. */
	if (picture->nsamples >= 3)
	{
		appendStringInfo(&canvas->text, "\nDatamart users per second over the cycle, a column is %s, the highest %s\n",
						 dmu_canvas_duration(picture->sample_width), picture->highest);
		appendStringInfoString(&canvas->text, "  ");
		dmu_canvas_levels(canvas, picture->samples, picture->nsamples);
		dmu_canvas_end_line(canvas);
	}
}

/* What needs a second look: failures, and the slowest. */
static void
draw_tail(DmuCanvas *canvas, const DmuPicture *picture)
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

		appendStringInfo(text, "  %s%9s  %s", kind->sqlstate, dmu_canvas_number(kind->number),
						 kind->message == NULL ? "" :
						 dmu_text_line(kind->message, 62));
		dmu_canvas_end_line(canvas);
	}
	if (too_many)
		appendStringInfo(text, "  and %d other SQLSTATEs\n", picture->nkinds - nkinds);

	if (picture->nslowest > 0)
		appendStringInfoString(text, "\nThe slowest datamart users\n");
	for (int i = 0; i < picture->nslowest; i++)
	{
		const DmuPictureSlow *slow = &picture->slowest[i];

		appendStringInfo(text, "  %12s  %-10s%12s  %s\n",
						 dmu_canvas_is_known(slow->dimension_user_id) ?
						 psprintf(INT64_FORMAT, slow->dimension_user_id) : "-",
						 slow->priority, dmu_canvas_duration(slow->usec), slow->outcome);
	}
}

char	   *
dmu_picture_draw(const DmuPicture *picture)
{
	DmuCanvas  *canvas = dmu_canvas_make();

	draw_head(canvas, picture);
	draw_workers(canvas, picture);
	draw_profile(canvas, picture);
	draw_tail(canvas, picture);

	/* Lines are divided by line breaks, not ended by them. */
	canvas->text.data[--canvas->text.len] = '\0';
	return canvas->text.data;
}
