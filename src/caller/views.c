/*-------------------------------------------------------------------------
 *
 * views.c
 *		What goes on now: the rows of the running cycles and of their workers.
 *
 *		They read the shared memory of the running cycles and no table, so they
 *		can be asked every second.
 *
 *-------------------------------------------------------------------------
 */
#include "source.h"

#include "miscadmin.h"
#include "param.h"
#include "progress.h"
#include "queue.h"
#include "slot.h"
#include "utils/builtins.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

/* A number with one decimal. */
static Datum
decimal_datum(double number)
{
	return NumericGetDatum(int64_div_fast_to_numeric((int64) (number * 10 + 0.5), 1));
}

static void
put_progress(DmuRows *rows, DmuControl *control)
{
	DmuProgress now;
	Datum		values[17];
	bool		nulls[17] = {false};
	bool		queued = (dmu_queue_phase(control) >= DMU_PHASE_QUEUED);
	double		rate;
	double		left;

	dmu_progress_read(control, &now);
	rate = dmu_progress_rate(control, &now);
	left = dmu_progress_time_left(control, &now);
	values[0] = Int64GetDatum(control->head.cycle_id);
	values[1] = CStringGetTextDatum(control->request.users_name);
	values[2] = NameGetDatum(&control->role_name);
	values[3] = CStringGetTextDatum(dmu_progress_phase_name(control));
	values[4] = TimestampTzGetDatum(control->started_at);
	values[5] = dmu_interval(now.at - control->started_at);
	values[6] = Int64GetDatum(control->backlog);
	values[7] = Int32GetDatum(control->found);
	values[8] = Int32GetDatum((int32) now.done);
	for (int o = 0; o < DMU_NOUTCOMES; o++)
		values[9 + o] = Int32GetDatum((int32) now.total.outcomes[o]);
	values[13] = Int32GetDatum((int32) pg_atomic_read_u32(&control->workers_registered));
	values[14] = decimal_datum(control->found > 0 ? now.done * 100.0 / control->found : 0);
	values[15] = decimal_datum(rate);
	values[16] = dmu_interval(left < 0 ? 0 : (int64) left);

	/* Nothing is known of the queue before it is filled. */
	nulls[6] = nulls[7] = nulls[13] = nulls[14] = nulls[15] = !queued;
	nulls[16] = !queued || left < 0;
	dmu_source_put(rows, lengthof(values), values, nulls);
}

void
dmu_progress_rows(DmuRows *rows)
{
	DmuProgressScan scan;
	DmuControl *control;

	dmu_progress_begin(&scan);
	while ((control = dmu_progress_next(&scan)) != NULL)
		put_progress(rows, control);
	dmu_progress_end(&scan);
}

static void
put_workers(DmuRows *rows, DmuControl *control)
{
	for (int i = 0; i < control->nslots; i++)
	{
		DmuSlot    *slot = &control->slots[i];
		uint32		pid = pg_atomic_read_u32(&slot->pid);
		uint32		state = pg_atomic_read_u32(&slot->state);
		bool		at_work = (state == DMU_WORKER_REFRESHING ||
							   state == DMU_WORKER_RECORDING);
		DmuTally	tally = {.total_usec = 0};
		Datum		values[10];
		bool		nulls[10] = {false};

		if (pid == 0)
			continue;
		dmu_slot_tally(slot, -1, &tally);
		values[0] = Int64GetDatum(control->head.cycle_id);
		values[1] = CStringGetTextDatum(control->request.users_name);
		values[2] = Int32GetDatum(i + 1);
		values[3] = Int32GetDatum((int32) pid);
		values[4] = CStringGetTextDatum(dmu_progress_state_name(control, i));
		values[5] = Int64GetDatum((int64) pg_atomic_read_u64(&slot->dimension_user_id));
		values[6] = CStringGetTextDatum(dmu_priority_name((DmuPriority)
														  pg_atomic_read_u32(&slot->priority)));
		values[7] = TimestampTzGetDatum((TimestampTz) pg_atomic_read_u64(&slot->since));
		values[8] = Int64GetDatum(tally.outcomes[DMU_PROCESSED]);
		values[9] = Int64GetDatum(tally.outcomes[DMU_FAILED]);
		nulls[5] = nulls[6] = !at_work;
		nulls[7] = (state == DMU_WORKER_EMPTY);
		dmu_source_put(rows, lengthof(values), values, nulls);
	}
}

void
dmu_worker_rows(DmuRows *rows)
{
	DmuProgressScan scan;
	DmuControl *control;

	dmu_progress_begin(&scan);
	while ((control = dmu_progress_next(&scan)) != NULL)
		put_workers(rows, control);
	dmu_progress_end(&scan);
}
